"""Chunks of any video file, as from a prepared data set: same size, same JPEG, same frames.

Imports neither TensorFlow nor JAX: worker processes need only this module.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rsa_jax.files import printable
from rsa_jax.input_pipeline.sampling import sliding_chunks, view_frames
from rsa_jax.preparation.clip import HEIGHT, QUALITY, STRIDE, WIDTH
from rsa_jax.preparation.video import VideoError, decode_jpeg, encode_jpeg, frame_rate, read_frames


@dataclasses.dataclass(frozen=True)
class Reading:
    """Options for reading a video.

    Attributes:
      num_frames: frames per clip.
      sampling: as `config.data.sampling`.
      num_clips: clips per chunk, as `config.eval.num_clips`.
      size: (height, width) of the stored frames in pixels.
      quality: JPEG quality of the stored frames.
      stride: every `stride`-th frame counts as stored.
      length: stored frames per chunk; None: the whole video is one chunk.
      hop: stored frames between the starts of successive chunks.
    """

    num_frames: int
    sampling: str
    num_clips: int = 1
    size: tuple[int, int] = (HEIGHT, WIDTH)
    quality: int = QUALITY
    stride: int = STRIDE
    length: int | None = None
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
class Chunk:
    """Consecutive frames of a video that are classified together.

    Attributes:
      path: path of the video.
      rate: stored frames per second of the video; None if the file does not state it.
      start: first stored frame.
      stop: stored frame after the last.
      images: JPEG images of the frames of its clips, one clip after the other.
    """

    path: pathlib.Path
    rate: float | None
    start: int
    stop: int
    images: list[bytes]

    def frames(self) -> UInt8[np.ndarray, "F H W 3"]:
        """Decoded frames of the clips."""
        return decode_jpeg(self.images)

    def seconds(self) -> tuple[float, float] | None:
        """Start and end in the video, in seconds; None if the rate is unknown."""
        return (self.start / self.rate, self.stop / self.rate) if self.rate else None

    def __str__(self) -> str:
        seconds = self.seconds()
        times = f", {seconds[0]:.1f} to {seconds[1]:.1f} s" if seconds else ""
        return f"frames {self.start} to {self.stop - 1}{times}"

    def title(self) -> str:
        """Name of the video, and frames and seconds of the chunk."""
        return f"{printable(pathlib.Path(self.path.name))}, {self}"


def read_chunks(path: pathlib.Path, reading: Reading) -> list[Chunk]:
    """Chunks of a video file or a folder of frames, from start to end; at least one.

    Raises:
      VideoError: If it cannot be decoded; the message starts with its path.
    """
    frames = read_frames(path, reading.size, stride=reading.stride)
    # Encode every frame, as in preparation: their number is known only at the end, and JPEG images are small.
    images = (encode_jpeg([frame], reading.quality)[0] for frame in frames)
    parts = sliding_chunks(images, reading.length, reading.hop) if reading.length else [(0, list(images))]
    chosen = []
    for start, part in parts:
        places = view_frames(len(part), reading.num_frames, reading.sampling, reading.num_clips)
        chosen.append((start, start + len(part), [part[i] for i in places]))
    rate = frame_rate(path)
    return [Chunk(path, rate / reading.stride if rate else None, *part) for part in chosen]


def try_chunks(path: pathlib.Path, reading: Reading) -> list[Chunk] | str:
    """Result of `read_chunks`, or the error message."""
    try:
        return read_chunks(path, reading)
    except VideoError as error:
        return str(error)
    except Exception as error:  # one bad file must not stop the others
        return f"{path}: {type(error).__name__}: {error}"
