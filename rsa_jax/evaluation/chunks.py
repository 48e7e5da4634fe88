"""Clips of any video file, as from a prepared data set: same size, same JPEG, same frames.

Imports neither TensorFlow nor JAX: worker processes need only this module.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rsa_jax.input_pipeline.sampling import sliding_windows, view_frames
from rsa_jax.preparation.clip import HEIGHT, QUALITY, STRIDE, WIDTH
from rsa_jax.preparation.video import VideoError, decode_jpeg, encode_jpeg, frame_rate, read_frames


@dataclasses.dataclass(frozen=True)
class Reading:
    """Options for reading a video.

    Attributes:
      num_frames: frames per clip.
      sampling: as `config.data.sampling`.
      num_clips: clips per window, as `config.eval.num_clips`.
      size: (height, width) of the stored frames in pixels.
      quality: JPEG quality of the stored frames.
      stride: every `stride`-th frame counts as stored.
      window: stored frames per window; None: the whole video is one window.
      hop: stored frames between the starts of successive windows.
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
    """`size`, `quality` and `stride` for `Reading`, from a workdir's record of its data set.

    Args:
      dataset: from `read_dataset`. Values that it lacks, as for a converted model, are the defaults of preparation.
    """
    provenance = dataset.get("provenance") or {}
    height, width = dataset.get("frame_size") or (HEIGHT, WIDTH)
    quality, stride = provenance.get("jpeg_quality", QUALITY), provenance.get("stride", STRIDE)
    return {"size": (height, width), "quality": quality, "stride": stride}


@dataclasses.dataclass(frozen=True)
class Segment:
    """A window of a video.

    Attributes:
      start: first stored frame.
      stop: stored frame after the last.
      pictures: JPEG images of the frames of its clips, one clip after the other.
    """

    start: int
    stop: int
    pictures: list[bytes]

    def frames(self) -> UInt8[np.ndarray, "F H W 3"]:
        """Decoded frames of the clips."""
        return decode_jpeg(self.pictures)


@dataclasses.dataclass(frozen=True)
class Video:
    """The windows of a video.

    Attributes:
      segments: windows from start to end, at least one.
      rate: stored frames per second, if the file states it.
    """

    segments: list[Segment]
    rate: float | None


def read_video(path: pathlib.Path, reading: Reading) -> Video:
    """Reads a video file or a folder of frames.

    Raises:
      VideoError: If it cannot be decoded; the message starts with its path.
    """
    frames = read_frames(path, reading.size, stride=reading.stride)
    # Encode every frame, as in preparation: their number is known only at the end, and JPEG images are small.
    pictures = (encode_jpeg([frame], reading.quality)[0] for frame in frames)
    parts = sliding_windows(pictures, reading.window, reading.hop) if reading.window else [(0, list(pictures))]
    segments = []
    for start, part in parts:
        chosen = view_frames(len(part), reading.num_frames, reading.sampling, reading.num_clips)
        segments.append(Segment(start, start + len(part), [part[i] for i in chosen]))
    rate = frame_rate(path)
    return Video(segments, rate / reading.stride if rate else None)


def try_video(path: pathlib.Path, reading: Reading) -> Video | str:
    """Result of `read_video`, or the error message."""
    try:
        return read_video(path, reading)
    except VideoError as error:
        return str(error)
    except Exception as error:  # one bad file must not stop the others
        return f"{path}: {type(error).__name__}: {error}"
