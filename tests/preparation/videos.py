"""Synthetic videos for the tests."""

import io
import pathlib
import struct
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition
from PIL import Image


def moving_bar(num_frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """A bright bar that moves right over a dark frame whose top is red: uint8 [T, H, W, 3]."""
    frames = np.full((num_frames, height, width, 3), 30, np.uint8)
    frames[:, : height // 4] = (200, 20, 20)
    for t in range(num_frames):
        left = t * (width - 8) // max(num_frames - 1, 1)
        frames[t, height // 2 :, left : left + 8] = 230
    return frames


def write_video(
    path: pathlib.Path, frames: np.ndarray, codec: str = "mpeg4", container: str | None = None
) -> pathlib.Path:
    """Encodes frames as a video; `container` is FFmpeg's name of the format if the extension does not imply it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, av.open(file, "w", format=container or path.suffix[1:]) as output:
        stream = output.add_stream(codec, rate=12)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        output.mux(stream.encode())
    return path


def write_folder(root: pathlib.Path, classes: dict[str, int], num_frames: int = 6) -> pathlib.Path:
    """Writes a folder for each class, with the number of videos given in `classes`."""
    for name, count in classes.items():
        for i in range(count):
            write_video(root / name / f"clip {i}.avi", moving_bar(num_frames))
    return root


def display_matrix(path: pathlib.Path, a: int, b: int, c: int, d: int) -> pathlib.Path:
    """Writes a display matrix into an MP4 file: column' = a column + c row, row' = b column + d row."""

    def matrix(a: int, b: int, c: int, d: int) -> bytes:
        return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    content = path.read_bytes()
    place = content.index(matrix(1, 0, 0, 1), content.index(b"tkhd"))
    path.write_bytes(content[:place] + matrix(a, b, c, d) + content[place + 36 :])
    return path


def image_bytes(kind: str) -> bytes:
    """An image file in Pillow's format `kind`."""
    buffer = io.BytesIO()
    Image.fromarray(moving_bar(1)[0]).save(buffer, kind)
    return buffer.getvalue()


def write_with_cover(path: pathlib.Path, frames: np.ndarray, *, first: bool) -> pathlib.Path:
    """Encodes frames (none: a second of silence) as a file with cover art, as its first or last video stream."""
    with av.open(str(path), "w") as output:
        streams = {}
        for name in ("cover", "film") if first else ("film", "cover"):
            if name == "film" and not len(frames):
                streams[name] = output.add_stream("aac", rate=44100)
                continue
            streams[name] = output.add_stream("mjpeg" if name == "cover" else "mpeg4", rate=12)
            streams[name].height, streams[name].width = 48, 64
            streams[name].pix_fmt = "yuvj420p" if name == "cover" else "yuv420p"
        streams["cover"].disposition = Disposition.attached_pic
        output.mux(streams["cover"].encode(av.VideoFrame.from_ndarray(moving_bar(1)[0], "rgb24")))
        if len(frames):
            content = [av.VideoFrame.from_ndarray(frame, "rgb24") for frame in frames]
        else:
            content = [av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono") for _ in range(43)]
        for frame in content:
            if not len(frames):
                frame.sample_rate = 44100
            output.mux(streams["film"].encode(frame))
        output.mux(streams["film"].encode())
    return path


def write_at(
    path: pathlib.Path, frames: np.ndarray, times: Sequence[float], *, hold: float, codec: str
) -> pathlib.Path:
    """Encodes frames shown at given times in seconds, the last one for `hold` seconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = 0
        packets = []
        for frame, time in zip(frames, times, strict=True):
            image = av.VideoFrame.from_ndarray(frame, "rgb24")
            image.pts, image.time_base = round(1000 * time), Fraction(1, 1000)
            packets += stream.encode(image)
        packets += stream.encode()
        for packet, after in zip(packets, [*times[1:], times[-1] + hold], strict=True):
            packet.duration = round(after / packet.time_base) - packet.pts
            output.mux(packet)
    return path
