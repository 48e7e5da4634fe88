"""Synthetic videos for the tests."""

import pathlib
import struct

import av
import numpy as np


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
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
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


def turn_tag(path: pathlib.Path, quarters: int) -> pathlib.Path:
    """Writes a rotation by `quarters` * 90 degrees clockwise into the track header of an MP4 file."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]

    def matrix(a: int, b: int) -> bytes:
        return struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)

    content = path.read_bytes()
    header = content.index(b"tkhd")
    place = content.index(matrix(1, 0), header)
    path.write_bytes(content[:place] + matrix(cos, sin) + content[place + 36 :])
    return path
