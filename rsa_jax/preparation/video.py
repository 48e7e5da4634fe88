"""Decoding of a video file or a folder of frames to frames of one size."""

import contextlib
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rsa_jax.extras import missing
from rsa_jax.preparation.frame_folder import Frame, find_frames, read_image

try:
    import av
    from av.stream import Disposition
    from PIL import Image
except ModuleNotFoundError as error:
    raise missing(error, "train") from error

# Extensions by which a file in a folder is a video.
VIDEO_SUFFIXES = {
    *(".264", ".265", ".3g2", ".3gp", ".amv", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif"),
    *(".h264", ".h265", ".hevc", ".ivf", ".lrv", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mk3d"),
    *(".mkv", ".mov", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt"),
    *(".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".xvid", ".y4m"),
}


class VideoError(ValueError):
    """A video that cannot be decoded; the message starts with its path."""


# FFmpeg must not open other files: text files that refer to them are not videos.
_OPTIONS = {"protocol_whitelist": "none"}
# Tolerated missing part of a video, cut off or damaged: fraction and seconds.
_SLACK_FRACTION, _SLACK_SECONDS = 0.1, 0.5

# FFmpeg decodes nearly any file to a picture, so files that are no videos are recognised here.
_ARCHIVES = {
    **{b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"7z\xbc\xaf": "7z", b"Rar!": "rar"},
    **{b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"},
}
_STILL_FORMATS = {"image2", "ico", "fits", "alias_pix", "brender_pix"}
_PHOTO_BRANDS = {"avif", "crx", "heic", "heim", "heis", "heix", "mif1", "mif2", "miaf", "jpeg"}
_TEXT_CODECS = {"ansi", "bintext", "idf", "xbin"}
# Streams without a header, which FFmpeg finds in many other files.
_BARE_FORMATS = {
    *("avs2", "avs3", "cavsvideo", "dirac", "dnxhd", "evc", "h261", "h263", "h264", "hevc", "ingenient", "m4v"),
    *("mjpeg", "mjpeg_2000", "mpegvideo", "obu", "rawvideo", "vc1", "vvc"),
}
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def _refuse_archive(start: bytes) -> None:
    """Raises a ValueError if the first bytes of a file are those of an archive."""
    kinds = [kind for magic, kind in _ARCHIVES.items() if start.startswith(magic)]
    kinds += ["tar"] if start[257:262] == b"ustar" else []
    if kinds:
        raise ValueError(f"an archive ({kinds[0]}), not a video; unpack it first")


def _film(container: av.container.InputContainer, suffix: str) -> av.video.stream.VideoStream:
    """First video stream that is not an attached picture.

    Raises:
        ValueError: If the file is not a video.
    """
    kind, brand = container.format.name, container.metadata.get("major_brand", "").strip()
    streams = [stream for stream in container.streams.video if not stream.disposition & _PICTURES]
    if not streams:
        pictures = ", only an attached picture (cover art)" if container.streams.video else ""
        raise ValueError(f"it holds no video stream{pictures}")
    one_image = kind == "gif" and streams[0].frames == 1
    if "_pipe" in kind or kind in _STILL_FORMATS or brand in _PHOTO_BRANDS or one_image:
        raise ValueError("an image, not a video; put the frames of a video into a folder of their own")
    codec = streams[0].codec_context
    if codec is None:
        raise ValueError("it holds a video stream of an unknown codec")
    if codec.name in _TEXT_CODECS:
        raise ValueError("text, not a video")
    if kind in _BARE_FORMATS and suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(f"not a video by its extension, nor by a header; it resembles a bare {kind} stream")
    return streams[0]


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Opens a video file: its container and the stream of the film."""
    if path.exists() and not path.is_file():
        raise ValueError("neither a file nor a folder")
    # From an open file: FFmpeg interprets ":" and "%" in a name, and an extension may be wrong.
    with path.open("rb") as file:
        _refuse_archive(file.read(262))
        file.seek(0)
        with av.open(file, "r", options=_OPTIONS, metadata_errors="ignore") as container:
            yield container, _film(container, path.suffix)


@dataclasses.dataclass
class _Packets:
    """Packets of a video that were read.

    Attributes:
        end: time until which they are shown, by the clock of the file.
        count: number of packets in the requested part.
        damaged: number of those that are marked as corrupt or cannot be decoded.
    """

    end: float = float("-inf")
    count: int = 0
    damaged: int = 0

    def decode(
        self, container: av.container.InputContainer, stream: av.video.stream.VideoStream, start: float
    ) -> Iterator[av.VideoFrame]:
        """Frames of the packets; packets count from `start` on, by the clock of the file."""
        # Videos are decoded in parallel; threads within each would only compete.
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            time = start
            if packet.pts is not None and packet.time_base:
                time = float(packet.pts * packet.time_base)
                self.end = max(self.end, time + float((packet.duration or 0) * packet.time_base))
            damaged = packet.is_corrupt
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                damaged = True  # skip a damaged packet, as players do
            self.count += packet.size > 0 and time >= start
            self.damaged += damaged and time >= start


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> Frame:
    """Resizes to (height, width) and applies the display matrix, which phones write, to the nearest quarter turn."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    # Columns and rows of the picture: column' = a column + c row, row' = b column + d row.
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].astype(float) if data is not None else (1, 0, 0, 0, 1)
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    height, width = size[::-1] if turned else size
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
    if turned:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _stated_end(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float | None:
    """Stated end of a video by the clock of the file, if known."""
    # A header that states the number of frames has a duration from the first frame on; in others (Matroska, fragmented
    # MP4) it is the time of the end.
    zero = _start(stream) if stream.frames else 0.0
    if stream.duration is not None and stream.time_base is not None:
        return zero + float(stream.duration * stream.time_base)
    # The container's duration counts only without other streams: audio may last longer.
    timed = [other for other in container.streams if not other.disposition & _PICTURES]
    if container.duration is None or len(timed) > 1:
        return None
    return zero + container.duration / av.time_base


def _start(stream: av.video.stream.VideoStream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _first_time(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float:
    """Time of the first frame by the clock of the file. Reads a packet if the header does not state it."""
    if stream.start_time is not None:
        return _start(stream)
    first = next(container.demux(stream))
    return float((first.pts or 0) * (first.time_base or 0))


def _within(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    seconds: tuple[float, float] | None,
) -> Iterator[av.VideoFrame]:
    """Frames shown from `seconds[0]` on and before `seconds[1]`, from the start of the video; None: all.

    Raises:
        ValueError: If the video ends long before `seconds[1]` or its stated end, or is damaged.
    """
    packets, times = _Packets(), list[float]()
    start, stop = float("-inf"), _stated_end(container, stream)
    if seconds:
        zero = _first_time(container, stream)
        start, stop = zero + seconds[0], zero + seconds[1]
        container.seek(int(start * av.time_base))  # to a key frame before it
    count = corrupt = 0
    for frame in packets.decode(container, stream, start):
        if frame.time is not None:
            times.append(frame.time)
        elif seconds:
            raise ValueError("frames have no timestamps, so a time range cannot be read")
        if seconds and stop is not None and times[-1] >= stop:
            break
        if not seconds or times[-1] >= start:
            count += 1
            corrupt += frame.is_corrupt
            yield frame
    else:
        _refuse_cut(times, packets.end, seconds, stop)
    _refuse_damaged(max(packets.damaged, corrupt), max(count, packets.count), times)


def _refuse_cut(times: list[float], end: float, seconds: tuple[float, float] | None, stop: float | None) -> None:
    if stop is None or len(times) < 2:
        return
    # The last frame is shown for its stated duration, or as long as the others.
    last = max(end, times[-1] + (times[-1] - times[0]) / (len(times) - 1))
    zero = stop - seconds[1] if seconds else times[0]
    length = seconds[1] - seconds[0] if seconds else stop - zero
    if stop - last > max(_SLACK_SECONDS, _SLACK_FRACTION * length):
        raise ValueError(f"cut off: it ends at {last - zero:.2f} of {stop - zero:.2f} s")


def _refuse_damaged(damaged: int, total: int, times: list[float]) -> None:
    fraction, length = damaged / max(total, 1), times[-1] - times[0] if times else 0.0
    beyond = fraction > _SLACK_FRACTION and (not length or fraction * length > _SLACK_SECONDS)
    if damaged and (beyond or damaged == total):
        raise ValueError(f"damaged or encrypted: {damaged} of {total} frames are corrupt or cannot be decoded")


def _file_frames(
    path: pathlib.Path,
    size: tuple[int, int],
    seconds: tuple[float, float] | None,
    stride: int,
    num_frames: int | None,
) -> Iterator[Frame]:
    count = 0
    with _open(path) as (container, stream):
        for count, frame in enumerate(_within(container, stream, seconds), 1):
            if (count - 1) % stride == 0:
                yield _upright(frame, size)
    # Programs disagree on the number of frames of a file by a few.
    if num_frames is not None and abs(count - num_frames) > _SLACK_FRACTION * num_frames:
        raise ValueError(f"expected {num_frames} frames, as the list states, got {count}")


def _folder_frames(path: pathlib.Path, size: tuple[int, int], stride: int, num_frames: int | None) -> Iterator[Frame]:
    paths = find_frames(path).paths
    if num_frames not in (None, len(paths)):
        raise ValueError(f"expected {num_frames} frames, as the list states, got {len(paths)}")
    yield from (read_image(frame, size) for frame in paths[::stride])


def read_frames(
    path: str | pathlib.Path,
    size: tuple[int, int],
    seconds: tuple[float, float] | None = None,
    stride: int = 1,
    num_frames: int | None = None,
) -> Iterator[Frame]:
    """Yields the frames of a video file or a folder of images, in order and upright.

    Args:
        path: file in any container and codec that FFmpeg supports, whatever its extension, or folder.
        size: (height, width) of the output frames in pixels.
        seconds: start (inclusive) and end (exclusive) of the part of a file to read.
        stride: keep every `stride`-th frame.
        num_frames: number of frames that a list states. A folder must hold as many, a file about as many.

    Raises:
        VideoError: If it is not a video, is cut off or damaged, or no frame can be decoded; gives the path and the
            reason.
    """
    path = pathlib.Path(path)
    count = 0
    try:
        if path.is_dir() and seconds:
            raise ValueError("a folder of frames has no timestamps, so a time range cannot be read")
        if path.is_dir():
            frames = _folder_frames(path, size, stride, num_frames)
        else:
            frames = _file_frames(path, size, seconds, stride, num_frames)
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
        with _open(path) as (_, stream):
            return float(stream.average_rate) if stream.average_rate else None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be decoded: {getattr(error, 'strerror', None) or error}") from error


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
