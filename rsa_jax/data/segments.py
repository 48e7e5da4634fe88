"""Clips of any video file, as they would come out of a prepared data set: same size, same JPEG, same frames.

Imports neither TensorFlow nor JAX: worker processes need nothing else.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rsa_jax.data.clip import HEIGHT, QUALITY, STRIDE, WIDTH
from rsa_jax.data.sampling import sliding_windows, view_frames
from rsa_jax.data.video import VideoError, decode_jpeg, encode_jpeg, frame_rate, read_frames


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a video is read.

    Attributes:
      num_frames: of a clip.
      sampling: as `config.data.sampling`.
      num_clips: of a segment, as `config.eval.num_clips`.
      size: (height, width) of the stored frames in pixels.
      quality: of their JPEG.
      stride: every so-many-th frame counts as stored.
      window: stored frames of a segment; None: the whole video is one.
      hop: stored frames from the start of a segment to that of the next.
    """

    num_frames: int
    sampling: str
    num_clips: int = 1
    size: tuple[int, int] = (HEIGHT, WIDTH)
    quality: int = QUALITY
    stride: int = STRIDE
    window: int | None = None
    hop: int = 1


def stored_as(dataset: dict[str, Any]) -> dict[str, Any]:
    """`size`, `quality` and `stride` of `Reading` that a workdir knows of its data set.

    Args:
      dataset: of `read_dataset`. A converted model knows none of them: then they are what preparation does by default.
    """
    provenance = dataset.get("provenance") or {}
    height, width = dataset.get("frame_size") or (HEIGHT, WIDTH)
    quality, stride = provenance.get("jpeg_quality", QUALITY), provenance.get("stride", STRIDE)
    return {"size": (height, width), "quality": quality, "stride": stride}


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a video.

    Attributes:
      start: its first frame, counted in stored ones.
      stop: the one after its last.
      pictures: JPEG pictures of the frames of its clips, one clip after the other.
    """

    start: int
    stop: int
    pictures: list[bytes]

    def frames(self) -> UInt8[np.ndarray, "F H W 3"]:
        """The frames as stored."""
        return decode_jpeg(self.pictures)


@dataclasses.dataclass(frozen=True)
class Video:
    """What was read of a video.

    Attributes:
      segments: from start to end, at least one.
      rate: stored frames per second, as far as the file says so.
    """

    segments: list[Segment]
    rate: float | None


def read_video(path: pathlib.Path, reading: Reading) -> Video:
    """Reads a video file or a folder of frames.

    Raises:
      VideoError: it cannot be decoded; the message starts with its path.
    """
    frames = read_frames(path, reading.size, stride=reading.stride)
    # Every frame, as in preparation: how many there are is known in the end, and as pictures they are small.
    pictures = (encode_jpeg([frame], reading.quality)[0] for frame in frames)
    parts = sliding_windows(pictures, reading.window, reading.hop) if reading.window else [(0, list(pictures))]
    segments = []
    for start, part in parts:
        chosen = view_frames(len(part), reading.num_frames, reading.sampling, reading.num_clips)
        segments.append(Segment(start, start + len(part), [part[i] for i in chosen]))
    rate = frame_rate(path)
    return Video(segments, rate / reading.stride if rate else None)


def try_video(path: pathlib.Path, reading: Reading) -> Video | str:
    """The same, or why it cannot be read."""
    try:
        return read_video(path, reading)
    except VideoError as error:
        return str(error)
    except Exception as error:  # whatever one file brings about, the others are to be read
        return f"{path}: {type(error).__name__}: {error}"
