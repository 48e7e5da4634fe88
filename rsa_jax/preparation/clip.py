"""A clip before it is stored. Imports no TensorFlow: worker processes need only this module."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

from rsa_jax.preparation.frame_folder import Frame
from rsa_jax.preparation.video import VideoError, encode_jpeg, read_frames

# Storage defaults: frame size in pixels, JPEG quality, and stride between the frames kept.
HEIGHT, WIDTH, QUALITY, STRIDE = 240, 320, 90, 1


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip to be stored as an example.

    Attributes:
      id: name of the clip, unique in its split.
      label: class, from 0.
      source: video file, folder of frames, or a picklable function that returns the frames,
        already at the stored size.
      seconds: start and end within the video file, if the clip is only a part of it.
      num_frames: number of frames that a list states, before `stride`.
    """

    id: str
    label: int
    source: str | Callable[[], Iterable[Frame]]
    seconds: tuple[float, float] | None = None
    num_frames: int | None = None

    def __str__(self) -> str:
        return f"{self.id} ({self.source})"


def encode_clip(clip: Clip, size: tuple[int, int], quality: int, stride: int) -> list[bytes] | str:
    """JPEG images of every `stride`-th frame, resized to (height, width) pixels; or the error message."""
    try:
        if callable(clip.source):
            return encode_jpeg(itertools.islice(clip.source(), 0, None, stride), quality)
        return encode_jpeg(read_frames(clip.source, size, clip.seconds, stride, clip.num_frames), quality)
    except VideoError as error:
        return str(error)
    except Exception as error:  # one bad file must not stop the others
        return f"{clip.source}: {type(error).__name__}: {error}"
