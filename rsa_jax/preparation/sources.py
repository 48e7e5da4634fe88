"""Locating the videos of a data set: a clip is found by name, at any folder depth."""

import os
import pathlib
from collections.abc import Collection, Sequence

from rsa_jax.preparation.video import IMAGE_SUFFIXES

VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
}


def find_videos(roots: Sequence[pathlib.Path], wanted: Collection[str]) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Finds videos and folders of frames anywhere below the given folders.

    A video is identified by its file name without extension, a folder of images by its own name.

    Args:
        roots: folders to search; earlier ones take precedence.
        wanted: names to look for.

    Returns:
        Paths by name for the wanted names that were found, and paths of the other videos.

    Raises:
        ValueError: If two paths below one of the folders match the same name.
    """
    found: dict[str, pathlib.Path] = {}
    extra: list[str] = []
    for root in roots:
        here, others = _find_below(root, wanted)
        found = here | found
        extra += others
    return found, sorted(extra)


def _find_below(root: pathlib.Path, wanted: Collection[str]) -> tuple[dict[str, pathlib.Path], list[str]]:
    found: dict[str, pathlib.Path] = {}
    extra: list[str] = []
    twice: list[str] = []
    pending = [root]
    while pending:
        folder = pending.pop()
        videos, folders, has_images = _contents(folder)
        clips = {path: path.stem for path in videos}
        clips |= {path: path.name for path in folders if path.name in wanted and _holds_images(path)}
        pending += [path for path in folders if path not in clips]
        if has_images and not (videos or folders) and folder != root:
            extra.append(str(folder))
        for path, name in clips.items():
            if name in found:
                twice.append(f"{found[name]} and {path}")
            elif name in wanted:
                found[name] = path
            else:
                extra.append(str(path))
    if twice:
        some = "; ".join(twice[:5])
        raise ValueError(f"{len(twice)} duplicate clips (keep one of each, or narrow the source): {some}")
    return found, extra


def _holds_images(folder: pathlib.Path) -> bool:
    """Whether a folder holds images. Stops at the first one, as there may be thousands."""
    with os.scandir(folder) as entries:
        files = (entry for entry in entries if not entry.name.startswith(".") and entry.is_file())
        return any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in files)


def _contents(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path], bool]:
    """Videos and folders in a folder, and whether it holds images."""
    videos, folders, has_images = [], [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(pathlib.Path(entry.path))
            elif suffix in VIDEO_SUFFIXES:
                videos.append(pathlib.Path(entry.path))
            has_images |= suffix in IMAGE_SUFFIXES
    return sorted(videos), sorted(folders), has_images


def list_videos(path: pathlib.Path) -> list[pathlib.Path]:
    """Videos and folders of frames, at or below a path.

    A path to a file is a video whatever its name; below a folder, the extension decides. A folder of images without
    videos is a folder of frames. Images beside videos are taken for previews.
    """
    if not path.is_dir():
        return [path]
    videos, folders, has_images = _contents(path)
    frames = [path] if has_images and not videos else []
    return frames + videos + [video for folder in folders for video in list_videos(folder)]


def find_file(names: Sequence[str], folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """First file with one of the names, in one of the folders or up to two levels below; None if there is none."""
    for folder in folders:
        for name in names:
            for path in [folder / name, *sorted(folder.glob(f"*/{name}")), *sorted(folder.glob(f"*/*/{name}"))]:
                if path.is_file():
                    return path
    return None
