"""Index of the stored frames: reads single frames of a clip without the rest of its record.

An uncompressed ArrayRecord file with one record per chunk holds every record as it is, except that a block header
interrupts the file every 64 KiB. Positions here do not count block headers.

Source: https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md
"""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped

from rsa_jax.files import complete

# Sizes in bytes. The first chunk of a file has no content.
_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 1 << 16, 24, 40
# Frames within as many bytes are read at once: over a network, that takes less time than a second read.
_NEAR = 1 << 20
_FRAME = np.dtype([("offset", "<u4"), ("size", "<u4"), ("checksum", "<u4")])


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """Places of the frames of N clips with F frames in total, in one or several files.

    Attributes:
        positions: position of each clip's record in its file.
        ends: total number of frames up to and including each clip.
        frames: offset in the record, size and CRC-32 of each frame.
        labels: class of each clip.
        ids: id of each clip, as UTF-8.
    """

    positions: Int[np.ndarray, " N"]
    ends: Int[np.ndarray, " N"]
    frames: Shaped[np.ndarray, " F"]
    labels: Int[np.ndarray, " N"]
    ids: Shaped[np.ndarray, " N"]

    def of_clip(self, clip: int) -> Shaped[np.ndarray, " T"]:
        """Offset, size and checksum of each frame of a clip."""
        return self.frames[self.ends[clip - 1] if clip else 0 : self.ends[clip]]

    def save(self, path: pathlib.Path) -> None:
        """Writes the index to a file."""
        with complete(path) as partial, partial.open("wb") as file:
            np.savez(file, **vars(self))


def index_path(folder: pathlib.Path, split: str) -> pathlib.Path:
    """Path of the index of a split in the folder of its data set."""
    return folder / f"{split}.frames.npz"


def load_index(path: pathlib.Path) -> FrameIndex:
    """The index in a file.

    Raises:
        OSError: If there is no such file.
        ValueError: If it holds no index.
    """
    try:
        with np.load(path) as arrays:
            return FrameIndex(**arrays)
    except (ValueError, TypeError, KeyError, EOFError) as error:
        raise ValueError("it is damaged") from error


def merge(indexes: Sequence[FrameIndex]) -> FrameIndex:
    """Index of the clips of several files, in order."""
    starts = np.cumsum([0, *(len(index.frames) for index in indexes)])
    fields = {name: [getattr(index, name) for index in indexes] for name in vars(indexes[0])}
    fields["ends"] = [ends + start for ends, start in zip(fields["ends"], starts, strict=False)]
    return FrameIndex(**{name: np.concatenate(arrays) for name, arrays in fields.items()})


class FileIndex:
    """Builds the index of one file while its records are written in order."""

    def __init__(self) -> None:
        self._end = _CHUNK_HEADER
        self._clips: list[tuple[int, int, int, bytes]] = []
        self._frames: list[tuple[int, int, int]] = []

    def add(self, record: bytes, frames: Sequence[bytes], label: int, id: str) -> None:
        """Adds the next record, which contains the frames in order."""
        # Before the record: the chunk's header, its compression, and the record's size as a varint, after that
        # varint's own size.
        start = self._end + _CHUNK_HEADER + 2 + -(-len(record).bit_length() // 7)
        offset = 0
        for frame in frames:
            offset = record.index(frame, offset)
            self._frames.append((offset, len(frame), zlib.crc32(frame)))
            offset += len(frame)
        self._end = start + len(record)
        self._clips.append((start, len(self._frames), label, id.encode()))

    def finish(self) -> FrameIndex:
        """The index of the added records."""
        positions, ends, labels, ids = zip(*self._clips, strict=True)
        frames = np.array(self._frames, _FRAME)
        return FrameIndex(np.array(positions), np.array(ends), frames, np.array(labels), np.array(ids))


def read_frames(file: int, position: int, frames: Sequence[tuple[int, int, int]]) -> list[bytes]:
    """Images of at least one frame of a clip.

    Args:
        file: descriptor of the open file.
        position: position of the clip's record.
        frames: entries of `FrameIndex.frames`.

    Raises:
        ValueError: If an image differs from the stored one.
    """
    offsets = [position + offset for offset, _, _ in frames]
    places = [(_in_file(at), _in_file(at + size - 1) + 1) for at, (_, size, _) in zip(offsets, frames, strict=True)]
    start, stop = min(start for start, _ in places), max(stop for _, stop in places)
    if stop - start <= _NEAR:
        span = os.pread(file, stop - start, start)
        contents = [span[first - start : last - start] for first, last in places]
    else:
        contents = [os.pread(file, last - first, first) for first, last in places]
    images = [_without_headers(content, first) for content, (first, _) in zip(contents, places, strict=True)]
    if any(zlib.crc32(image) != checksum for image, (_, _, checksum) in zip(images, frames, strict=True)):
        raise ValueError("hash mismatch")
    return images


def _without_headers(content: bytes, start: int) -> bytes:
    """Content from a place in the file, without the block headers in it."""
    head = _BLOCK - start % _BLOCK
    rest = (content[i + _BLOCK_HEADER : i + _BLOCK] for i in range(head, len(content), _BLOCK))
    return content[:head] + b"".join(rest) if len(content) > head else content


def _in_file(position: int) -> int:
    """Place in the file of a position."""
    block, place = divmod(position, _BLOCK - _BLOCK_HEADER)
    return block * _BLOCK + _BLOCK_HEADER + place
