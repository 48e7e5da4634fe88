"""Unpacking of data set archives: zip and tar files, and tar files split into parts."""

import bz2
import collections
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

from tqdm import tqdm

from rsa_jax.files import write_json

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# A part of a split tar file; parts are ordered by name: something-something-v2-00, frames.tar.gz.aa.
_PART = re.compile(r"(?P<name>.+\.(?:tar|tgz|tar\.\w+)|.+(?=-\d))[-._](?P<part>\d{2,3}|[a-z]{2})")
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}

# Limit of the unpacked size: bytes, and factor to the size of the archive. Videos, images and lists stay far below.
_SMALL, _MOST_EXPANSION = 1 << 28, 100
_HEADER = 512  # bytes that count for even an empty file
_RESERVE = 1 << 26  # bytes of the disk that stay free

Archives = dict[str, list[pathlib.Path]]


class ArchiveError(RuntimeError):
    """An archive that cannot be unpacked; the message names it."""


class _Joined(io.RawIOBase):
    """Several files read as one stream."""

    def __init__(self, paths: Sequence[pathlib.Path], progress: tqdm):
        self._files = [path.open("rb") for path in paths]
        self._progress = progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        while self._files:
            count = self._files[0].readinto(buffer)
            if count:
                self._progress.update(count)
                return count
            self._files.pop(0).close()
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


class _TooLargeError(Exception):
    """More would be unpacked than an archive of its size holds, or than fits on the disk."""


class _Limited(io.RawIOBase):
    """The unpacked stream of an archive, up to a number of bytes.

    Raises:
      _TooLargeError: When more is read.
    """

    def __init__(self, stream: IO[bytes], limit: int):
        self._stream, self._limit, self._count = stream, limit, 0

    def read(self, size: int = -1, /) -> bytes:
        content = self._stream.read(size)
        self._count += len(content)
        _check_size(self._count, self._limit)
        return content


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise _TooLargeError(f"expected at most {limit:,} bytes in an archive of its size, got {size:,} or more")


def _check_disk(size: int, folder: pathlib.Path) -> None:
    free = shutil.disk_usage(folder).free - _RESERVE
    if size > free:
        raise _TooLargeError(f"the disk of {folder} has no room: {size:,} bytes are needed, {free:,} are left")


def find_archives(root: pathlib.Path) -> Archives:
    """Archives anywhere below a folder: files by path without the part suffix. Parts are in order.

    Raises:
      ArchiveError: If a part before another one is missing, or a file is a rar archive.
    """
    found: Archives = collections.defaultdict(list)
    for path in sorted(_files(root)):
        part = _PART.fullmatch(path.name)
        if path.suffix.lower() == ".rar":
            raise ArchiveError(f"{path}: rar archives are not supported; unpack it first (unrar x {path.name})")
        if path.name.lower().endswith(_SUFFIXES):
            found[str(path)].append(path)
        elif part:
            found[str(path.with_name(part["name"]))].append(path)
    found = {name: paths for name, paths in found.items() if len(paths) > 1 or _is_archive(paths[0])}
    for name, paths in found.items():
        _check_parts(name, [match["part"] for match in (_PART.fullmatch(path.name) for path in paths) if match])
    return found


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    for folder, _, names in os.walk(root):
        yield from (pathlib.Path(folder, name) for name in names if not name.startswith("."))


def _is_archive(path: pathlib.Path) -> bool:
    """Whether a file is an archive, by its name or, for a single part, its first bytes."""
    with path.open("rb") as file:
        start = file.read(262)
    return path.name.lower().endswith(_SUFFIXES) or start[:2] in _COMPRESSED or start[257:] == b"ustar"


def _check_parts(name: str, parts: Sequence[str]) -> None:
    numbers = {int(part) for part in parts if part.isdecimal()}
    missing = sorted(set(range(min(numbers | {1}), max(numbers | {0}))) - numbers)
    if missing:
        raise ArchiveError(f"{name}: missing parts {', '.join(map(str, missing))} of {max(numbers)}")


def unpack_all(archives: Archives, target: pathlib.Path) -> None:
    """Unpacks archives from `find_archives` into a folder, and the archives in them.

    Files that an interrupted run has unpacked are kept. If the archives have changed since, unpacking starts again.

    Raises:
      ArchiveError: If one is damaged, cut off, not an archive, or too large; in the last case nothing stays unpacked.
    """
    outer, inner = target / "outer", target / "inner"
    record, state = target / "archives.json", [_state(path) for paths in archives.values() for path in paths]
    if target.exists() and (not record.exists() or json.loads(record.read_text()) != state):
        shutil.rmtree(target)
    outer.mkdir(parents=True, exist_ok=True)
    write_json(record, state)
    for name, paths in archives.items():
        _unpack(name, paths, outer, target)
    if not (target / ".inner").exists():
        inner.mkdir(exist_ok=True)
        for name, paths in find_archives(outer).items():
            _unpack(name, paths, inner, target)
        (target / ".inner").touch()
    for path in _files(outer):
        if path.name.lower().endswith(_SUFFIXES) or _PART.fullmatch(path.name):
            path.unlink()  # its files are in `inner`


def _state(path: pathlib.Path) -> list[str | int]:
    """Fingerprint of a file: path, size and modification time."""
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns]


def _unpack(name: str, paths: Sequence[pathlib.Path], folder: pathlib.Path, target: pathlib.Path) -> None:
    mark = target / f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.unpacked"
    if mark.exists():
        return
    total, title = sum(path.stat().st_size for path in paths), pathlib.Path(name).name
    limit = max(_SMALL, _MOST_EXPANSION * total)
    try:
        with tqdm(desc=f"unpacking {title}", total=total, unit="B", unit_scale=True, mininterval=0.5) as progress:
            if name.lower().endswith(".zip"):
                _unpack_zip(paths[0], folder, progress, limit)
            else:
                _unpack_tar(paths, folder, progress, limit)
    except _TooLargeError as error:
        shutil.rmtree(target)
        raise ArchiveError(f"{_title(paths)}: not unpacked: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(target)  # a full disk stops other programs, too
        raise ArchiveError(f"{_title(paths)}: cannot be unpacked: {error}") from error
    mark.touch()


def _title(paths: Sequence[pathlib.Path]) -> str:
    return f"{paths[0]}" + (f" and its {len(paths) - 1} other parts" if len(paths) > 1 else "")


def _unpack_tar(paths: Sequence[pathlib.Path], folder: pathlib.Path, progress: tqdm, limit: int) -> None:
    with io.BufferedReader(_Joined(paths, progress), 1 << 20) as joined:
        # Decompressed here: in a stream, tarfile does not verify checksums.
        reader = _COMPRESSED.get(joined.peek(2)[:2])
        plain: Any = _Limited(reader(joined) if reader else joined, limit)
        with tarfile.open(fileobj=plain, mode="r|") as archive:
            for member in archive:
                if not _is_there(folder / member.name, member.size):
                    _check_disk(member.size, folder)
                    archive.extract(member, folder, filter="data")
        rest = plain.read(1 << 20)
        while rest:  # to the end, where the checksum is
            rest = plain.read(1 << 20)


def _unpack_zip(path: pathlib.Path, folder: pathlib.Path, progress: tqdm, limit: int) -> None:
    with zipfile.ZipFile(path) as archive:
        # A file that is longer than declared is not read to its end.
        _check_size(sum(member.file_size + _HEADER for member in archive.infolist()), limit)
        for member in archive.infolist():
            if not _is_there(folder / member.filename, member.file_size):
                _check_disk(member.file_size, folder)
                archive.extract(member, folder)
            progress.update(member.compress_size)


def _is_there(path: pathlib.Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
