"""Where the videos of a data set lie: whatever the folders between, a clip is found by its name."""

import os
import pathlib
from collections.abc import Collection, Sequence

from rsa_jax.data.video import IMAGE_SUFFIXES

VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
}


def find_videos(roots: Sequence[pathlib.Path], wanted: Collection[str]) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Videos, and folders of frames, anywhere below some folders.

    A video is known by its name without extension, a folder of frames by its own.

    Args:
      roots: where to look.
      wanted: names to look for.

    Returns:
      Where each of the wanted names lies, as far as it was found, and paths of videos that nobody wants.

    Raises:
      ValueError: two paths stand for one name.
    """
    found: dict[str, pathlib.Path] = {}
    extra: list[str] = []
    pending = sorted(roots, reverse=True)
    while pending:
        folder = pending.pop()
        videos, folders, pictures = _contents(folder)
        if pictures and not (videos or folders) and folder not in roots:
            extra.append(str(folder))
        named = {path: path.stem for path in videos} | {path: path.name for path in folders}
        for path, name in named.items():
            if name in found:
                raise ValueError(f"{found[name]} and {path} both stand for {name!r}: keep one, or narrow the source")
            if name in wanted:
                found[name] = path
        pending += [path for path in folders if path.name not in wanted]
        extra += [str(path) for path in videos if path.stem not in wanted]
    return found, sorted(extra)


def holds_video(root: pathlib.Path) -> bool:
    """Whether a folder holds, at any depth, a video or a folder of pictures."""
    videos, folders, _ = _contents(root)
    return bool(videos) or any(_contents(folder)[2] or holds_video(folder) for folder in folders)


def _contents(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path], bool]:
    """Videos and folders in a folder, and whether there are pictures."""
    videos, folders, pictures = [], [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(pathlib.Path(entry.path))
            elif suffix in VIDEO_SUFFIXES:
                videos.append(pathlib.Path(entry.path))
            pictures |= suffix in IMAGE_SUFFIXES
    return sorted(videos), sorted(folders), pictures


def find_file(names: Sequence[str], folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """The first of some file names, in or one folder below one of the folders."""
    for folder in folders:
        for name in names:
            for path in [folder / name, *sorted(folder.glob(f"*/{name}"))]:
                if path.is_file():
                    return path
    return None
