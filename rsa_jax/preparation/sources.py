"""Locating the videos of a data set: a clip is found by name, at any folder depth."""

import dataclasses
import os
import pathlib
from collections.abc import Collection, Sequence

from rsa_jax.preparation.frame_folder import by_series, find_frames, flow_folders, is_image
from rsa_jax.preparation.video import VIDEO_SUFFIXES

# Start of the names of folders whose videos replace those of the same name elsewhere, as distributed with Kinetics.
_REPLACEMENTS = "replacement"


@dataclasses.dataclass
class _Folder:
    """Visible contents of a folder, each list sorted.

    Attributes:
        videos: files with the extension of a video.
        images: names of image files.
        folders: other folders than those of optical flow.
        flow: folders of optical flow, with the reason why they are not used.
        unused: other files, with the reason.
    """

    videos: list[pathlib.Path]
    images: list[str]
    folders: list[pathlib.Path]
    flow: list[str]
    unused: list[str]

    def is_clip(self) -> bool:
        """Whether a series of images makes it the folder of a clip's frames."""
        return not self.videos and any(len(names) > 1 for names in by_series(self.images).values())


def _contents(folder: pathlib.Path) -> _Folder:
    found = _Folder([], [], [], [], [])
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = {entry.name for entry in visible if _is_folder(entry)}
    found.images = [entry.name for entry in visible if entry.name not in folders and is_image(entry.name)]
    flow = flow_folders([*folders, *by_series(found.images)]) if folders else set()
    for entry in visible:
        path = pathlib.Path(entry.path)
        if entry.name in flow & folders:
            found.flow.append(f"{path}: optical flow")
        elif entry.name in folders:
            found.folders.append(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            found.videos.append(path)
        elif not is_image(entry.name):
            found.unused.append(f"{path}: not a video by its extension")
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class _Visited:
    """Folders visited so far in a search, by their real paths: links may form loops."""

    def __init__(self, root: pathlib.Path) -> None:
        self._seen = {str(parent) for parent in pathlib.Path(os.path.realpath(root)).parents}

    def first(self, folder: pathlib.Path) -> bool:
        """Whether a folder is visited for the first time, and is none above the root."""
        real = os.path.realpath(folder)
        if real in self._seen:
            return False
        self._seen.add(real)
        return True


def find_videos(roots: Sequence[pathlib.Path], wanted: Collection[str]) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Finds videos and folders of frames anywhere below the given folders.

    A video is identified by its file name without extension, a folder of images by its own name. Below a folder whose
    name starts with "replacement", it replaces another one of the same name.

    Args:
        roots: folders to search; earlier ones take precedence, except over replacements.
        wanted: names to look for.

    Returns:
        Paths by name for the wanted names that were found, and paths of the other videos, with the reason if they are
        replaced or optical flow.

    Raises:
        ValueError: If two paths below one of the folders match the same name.
    """
    found: dict[str, pathlib.Path] = {}
    extra: list[str] = []
    for root in roots:
        here, others = _find_below(root, wanted)
        replacing = {name: path for name, path in here.items() if _is_replacement(path, root)}
        others += [f"{found[name]}: replaced by {path}" for name, path in replacing.items() if name in found]
        found = here | found | replacing
        extra += others
    return found, sorted(extra)


def _find_below(root: pathlib.Path, wanted: Collection[str]) -> tuple[dict[str, pathlib.Path], list[str]]:
    found: dict[str, pathlib.Path] = {}
    twice: list[str] = []
    clips, extra = _clips_below(root, wanted)
    for path, name in clips:
        if name not in wanted:
            extra.append(str(path))
        elif name not in found:
            found[name] = path
        elif _is_replacement(path, root) == _is_replacement(found[name], root):
            twice.append(f"{found[name]} and {path}")
        else:
            other, found[name] = sorted((found[name], path), key=lambda path: _is_replacement(path, root))
            extra.append(f"{other}: replaced by {found[name]}")
    if twice:
        some = "; ".join(twice[:5])
        raise ValueError(f"{len(twice)} duplicate clips (keep one of each, or narrow the source): {some}")
    return found, extra


def _is_replacement(path: pathlib.Path, root: pathlib.Path) -> bool:
    return any(part.lower().startswith(_REPLACEMENTS) for part in path.relative_to(root).parts[:-1])


def _clips_below(root: pathlib.Path, wanted: Collection[str]) -> tuple[list[tuple[pathlib.Path, str]], list[str]]:
    """Videos and folders of frames, each with its name, and folders of optical flow.

    A folder that is not wanted is one of frames only if it holds nothing else.
    """
    clips: list[tuple[pathlib.Path, str]] = []
    flow: list[str] = []
    visited = _Visited(root)
    pending = [root]
    while pending:
        folder = pending.pop()
        if not visited.first(folder):
            continue
        here = _contents(folder)
        flow += here.flow
        clips += [(path, path.stem) for path in here.videos]
        frames = [path for path in here.folders if path.name in wanted and _holds_images(path)]
        clips += [(path, path.name) for path in frames]
        pending += [path for path in here.folders if path not in frames]
        if here.images and not (here.videos or here.folders) and folder != root:
            clips.append((folder, folder.name))
    return clips, flow


def _holds_images(folder: pathlib.Path) -> bool:
    """Whether a folder holds the frames of a clip. Stops at the first image, as there may be thousands."""
    with os.scandir(folder) as entries:
        folders = []
        for entry in entries:
            if _is_folder(entry):
                folders.append(entry.name)
            elif is_image(entry.name):
                return True
    return len(folders) - len(flow_folders(folders)) == 1 < len(folders)


def find_clips(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Videos and folders of frames at or below a folder, and the paths that are neither, with the reason.

    A file is a video by its extension. A folder of images without videos is a folder of frames if several images differ
    only in their number, or if no clips are below it.
    """
    return _find_clips(folder, _Visited(folder))


def _find_clips(folder: pathlib.Path, visited: _Visited) -> tuple[list[pathlib.Path], list[str]]:
    if not visited.first(folder):
        return [], [f"{folder}: a link to a folder that is searched elsewhere"]
    here = _contents(folder)
    if here.is_clip():
        return [folder], here.flow + here.unused + [f"{inner}: inside a folder of frames" for inner in here.folders]
    clips, unused = here.videos, here.flow + here.unused
    for inner in here.folders:
        more_clips, more_unused = _find_clips(inner, visited)
        clips, unused = clips + more_clips, unused + more_unused
    if here.images and not clips:
        return [folder], unused
    return clips, unused + [f"{folder / name}: an image beside clips" for name in here.images]


def flow_beside_frames(folder: pathlib.Path) -> list[str]:
    """Paths of the optical flow that is left out of a folder of frames, with the reason."""
    try:
        return [f"{folder / name}: optical flow" for name in find_frames(folder).left_out]
    except ValueError:  # the folder is refused when it is decoded
        return []


def find_file(names: Sequence[str], folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """First file with one of the names, in one of the folders or up to two levels below; None if there is none."""
    for folder in folders:
        for name in names:
            for path in [folder / name, *sorted(folder.glob(f"*/{name}")), *sorted(folder.glob(f"*/*/{name}"))]:
                if path.is_file():
                    return path
    return None
