"""Archives as data sets are distributed: zip and tar files, and tar files cut into parts."""

import collections
import io
import pathlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Sequence

from tqdm import tqdm

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# something-something-v2-00, frames.tar.gz.aa: a tar file cut into parts, which lie in the order of their names.
_PART = re.compile(r"(?P<name>.+)[-.](?P<part>\d{2,3}|[a-z]{2})")


class ArchiveError(RuntimeError):
    """An archive that cannot be unpacked; the message names it."""


class _Joined(io.RawIOBase):
    """Files read one after the other as if they were one."""

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


def find_archives(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Archives directly in a folder, by name; the parts of one that was cut lie in order.

    Raises:
      ArchiveError: a part is missing before another one, or it is a rar file.
    """
    found: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for path in sorted(folder.iterdir()):
        part = _PART.fullmatch(path.name)
        if path.suffix.lower() == ".rar":
            raise ArchiveError(f"{path}: unpack it first (unrar x {path.name}), rar files are not read here")
        if path.name.lower().endswith(_SUFFIXES):
            found[path.name].append(path)
        elif path.is_file() and part:
            found[part["name"]].append(path)
    for name, paths in found.items():
        _check_parts(name, [match["part"] for match in (_PART.fullmatch(path.name) for path in paths) if match])
    return dict(found)


def _check_parts(name: str, parts: Sequence[str]) -> None:
    numbers = {int(part) for part in parts if part.isdecimal()}
    missing = sorted(set(range(min(numbers | {1}), max(numbers | {0}))) - numbers)
    if missing:
        raise ArchiveError(f"{name}: of its parts up to {max(numbers)}, {', '.join(map(str, missing))} are missing")


def unpack_all(folder: pathlib.Path, target: pathlib.Path) -> bool:
    """Unpacks the archives of a folder into another one, and the archives in them. Says whether there are any.

    What an interrupted run has unpacked is not written again.

    Raises:
      ArchiveError: one is damaged or cut off, or no archive.
    """
    archives = find_archives(folder)
    if not archives:
        return False
    target.mkdir(parents=True, exist_ok=True)
    for name, paths in archives.items():
        _unpack(name, paths, target)
    for name, paths in find_archives(target).items():
        _unpack(name, paths, target)
        for path in paths:
            path.unlink()  # its files lie beside it
    return True


def _unpack(name: str, paths: Sequence[pathlib.Path], target: pathlib.Path) -> None:
    mark = target / f".{name}.unpacked"
    if mark.exists():
        return
    total = sum(path.stat().st_size for path in paths)
    try:
        with tqdm(desc=f"unpacking {name}", total=total, unit="B", unit_scale=True, mininterval=0.5) as progress:
            if name.lower().endswith(".zip"):
                _unpack_zip(paths[0], target, progress)
            else:
                _unpack_tar(paths, target, progress)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        raise ArchiveError(
            f"{paths[0]}{' and its parts' if len(paths) > 1 else ''}: cannot be unpacked: {error}"
        ) from error
    mark.touch()


def _unpack_tar(paths: Sequence[pathlib.Path], folder: pathlib.Path, progress: tqdm) -> None:
    joined = io.BufferedReader(_Joined(paths, progress), 1 << 20)
    with joined, tarfile.open(fileobj=joined, mode="r|*") as archive:
        for member in archive:
            if not _is_there(folder / member.name, member.size):
                archive.extract(member, folder, filter="data")


def _unpack_zip(path: pathlib.Path, folder: pathlib.Path, progress: tqdm) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not _is_there(folder / member.filename, member.file_size):
                archive.extract(member, folder)
            progress.update(member.compress_size)


def _is_there(path: pathlib.Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
