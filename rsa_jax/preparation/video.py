"""Decoding of a video file or a folder of frames to frames of one size."""

import io
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8

from rsa_jax.extras import missing

try:
    import av
    from PIL import Image
except ModuleNotFoundError as error:
    raise missing(error, "train") from error

Frame = UInt8[np.ndarray, "H W 3"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class VideoError(ValueError):
    """A video that cannot be decoded; the message starts with its path."""


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts img_2 before img_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


# FFmpeg must not open other files: text files that refer to them are not videos.
_OPTIONS = {"protocol_whitelist": "none"}
# Tolerated shortfall from the stated length: fraction and seconds.
_SLACK_FRACTION, _SLACK_SECONDS = 0.1, 0.5


def _decode_packets(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    # Videos are decoded in parallel; threads within each would only compete.
    stream.thread_type = "NONE"
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue  # skip a damaged packet, as players do


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> Frame:
    """Resizes to (height, width) and applies the rotation tag, which phones write."""
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise
    height, width = size if quarters % 2 == 0 else size[::-1]
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
    return np.rot90(pixels, quarters)


def _stated_seconds(container: av.container.InputContainer) -> float | None:
    """Stated duration, if known. The container's counts only without other streams: audio may last longer."""
    stream = container.streams.video[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is None or len(container.streams) > 1:
        return None
    return container.duration / av.time_base


def _within(
    container: av.container.InputContainer, frames: Iterator[av.VideoFrame], seconds: tuple[float, float] | None
) -> Iterator[av.VideoFrame]:
    """Frames shown from `seconds[0]` on and before `seconds[1]`, from the start of the video; None: all.

    Raises:
        ValueError: If the video ends long before `seconds[1]` or its stated end.
    """
    stream = container.streams.video[0]
    zero = float((stream.start_time or 0) * (stream.time_base or 0))
    start, end = seconds or (0.0, _stated_seconds(container))
    if seconds:
        container.seek(int((zero + start) * av.time_base))  # to a key frame before it
    times: list[float] = []
    for frame in frames:
        if frame.time is not None:
            times.append(frame.time - zero)
        elif seconds:
            raise ValueError("frames have no timestamps, so a time range cannot be read")
        if seconds and times[-1] >= seconds[1]:
            return
        if not seconds or times[-1] >= start:
            yield frame
    if end and len(times) > 1:
        last = times[-1] + (times[-1] - times[0]) / (len(times) - 1)  # a frame is shown until the next one
        if end - last > max(_SLACK_SECONDS, _SLACK_FRACTION * (end - start)):
            raise ValueError(f"cut off: it ends at {last:.2f} of {end:.2f} s")


def _file_frames(
    path: pathlib.Path, size: tuple[int, int], seconds: tuple[float, float] | None, stride: int
) -> Iterator[Frame]:
    if path.exists() and not path.is_file():
        raise ValueError("neither a file nor a folder")
    # From an open file: FFmpeg interprets ":" and "%" in a name, and an extension may be wrong.
    with path.open("rb") as file, av.open(file, "r", options=_OPTIONS, metadata_errors="ignore") as container:
        if "_pipe" in container.format.name or container.format.name == "image2":
            raise ValueError("an image, not a video; put the frames of a video into a folder of their own")
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        for frame in itertools.islice(_within(container, _decode_packets(container), seconds), 0, None, stride):
            yield _upright(frame, size)


def _folder_frames(path: pathlib.Path, size: tuple[int, int], stride: int) -> Iterator[Frame]:
    names = [p.name for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
    for name in sorted(names, key=natural_key)[::stride]:
        try:
            with Image.open(path / name) as image:
                yield np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))
        except OSError as error:
            raise ValueError(f"frame {name}: {error}") from error


def read_frames(
    path: str | pathlib.Path,
    size: tuple[int, int],
    seconds: tuple[float, float] | None = None,
    stride: int = 1,
) -> Iterator[Frame]:
    """Yields the frames of a video file or a folder of images, in order and upright.

    Args:
        path: file in any container and codec that FFmpeg supports, whatever its extension, or folder.
        size: (height, width) of the output frames in pixels.
        seconds: start (inclusive) and end (exclusive) of the part of a file to read.
        stride: keep every `stride`-th frame.

    Raises:
        VideoError: If no frame can be decoded, or the video is cut off; gives the path and the reason.
    """
    path = pathlib.Path(path)
    count = 0
    try:
        if path.is_dir() and seconds:
            raise ValueError("a folder of frames has no timestamps, so a time range cannot be read")
        frames = _folder_frames(path, size, stride) if path.is_dir() else _file_frames(path, size, seconds, stride)
        for frame in frames:
            yield frame
            count += 1
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f" after frame {count}" if count else ""
        raise VideoError(f"{path}: cannot be decoded{where}: {reason}") from error
    if not count:
        where = f" from {seconds[0]:.2f} to {seconds[1]:.2f} s" if seconds else ""
        raise VideoError(f"{path}: no frame found{where}")


def frame_rate(path: str | pathlib.Path) -> float | None:
    """Mean frames per second of a video file; None if not stated, or for a folder.

    Raises:
        VideoError: If the file is not a video.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return None
    try:
        with path.open("rb") as file, av.open(file, "r", options=_OPTIONS, metadata_errors="ignore") as container:
            rate = container.streams.video[0].average_rate if container.streams.video else None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
    return float(rate) if rate else None


def encode_jpeg(frames: Iterable[Frame], quality: int) -> list[bytes]:
    """Encodes each frame as a JPEG image of the given quality (1 to 100)."""
    images = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        images.append(buffer.getvalue())
    return images


def decode_jpeg(images: Iterable[bytes]) -> UInt8[np.ndarray, "T H W 3"]:
    """Decodes images of one size to frames."""
    frames = []
    for content in images:
        with Image.open(io.BytesIO(content)) as image:
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)
