"""A clip on its way into a data set. Imports no TensorFlow: worker processes need nothing else."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

from rsa_jax.data.video import Frame, VideoError, encode_jpeg, read_frames

# What is stored unless somebody says otherwise: frames of so many pixels, as JPEG of that quality, of all frames every
# so-many-th.
HEIGHT, WIDTH, QUALITY, STRIDE = 240, 320, 90, 1


@dataclasses.dataclass(frozen=True)
class Clip:
    """An example to be.

    Attributes:
      id: name of the clip, unique in its split.
      label: class, from 0.
      source: video file, folder of frames, or a picklable function that returns the frames,
        already at the stored size.
      seconds: of the video file, if the clip is but a part of it: start and end.
    """

    id: str
    label: int
    source: str | Callable[[], Iterable[Frame]]
    seconds: tuple[float, float] | None = None

    def __str__(self) -> str:
        return f"{self.id} ({self.source})"


def encode_clip(clip: Clip, size: tuple[int, int], quality: int, stride: int) -> list[bytes] | str:
    """JPEG pictures of every `stride`-th frame, resized to (height, width) pixels; or why there are none."""
    try:
        if callable(clip.source):
            return encode_jpeg(itertools.islice(clip.source(), 0, None, stride), quality)
        return encode_jpeg(read_frames(clip.source, size, clip.seconds, stride), quality)
    except VideoError as error:
        return str(error)
    except Exception as error:  # whatever one file brings about, the others are to be prepared
        return f"{clip.source}: {type(error).__name__}: {error}"
