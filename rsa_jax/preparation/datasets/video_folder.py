"""The `video_folder` data set: a user's own videos, in folders named by class or in list files."""

import dataclasses
import functools
import itertools
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from rsa_jax.preparation.builder import ClipBuilder, ClipConfig
from rsa_jax.preparation.clip import Clip
from rsa_jax.preparation.datasets.lists import numbered_lines, read_names
from rsa_jax.preparation.sources import find_clips, flow_beside_frames
from rsa_jax.preparation.store import PreparationError

Splits = dict[str, list[Clip]]

# Words in class names of motions that a horizontal flip usually changes into another.
DIRECTIONS = {
    *("left", "right", "leftward", "rightward", "leftwards", "rightwards"),
    *("clockwise", "counterclockwise", "anticlockwise", "cw", "ccw"),
}


class Found(NamedTuple):
    """Class names, the clips of every split, and the paths in class folders that are no clips, with the reason."""

    class_names: list[str]
    splits: Splits
    unused: list[str]


@dataclasses.dataclass(eq=False, kw_only=True)
class VideoFolderConfig(ClipConfig):
    """Location of the videos and how they are split.

    Attributes:
        source: folder of the videos. If it holds train/, validation/ (or val/) or test/, these are the splits.
        train_list: list file of the training clips, lines of `path label` or `path num_frames label`.
        validation_list: list file of the validation clips.
        label_names: file of class names, line i for label i; only with lists.
        validation_fraction: fraction of every class used as the validation split; only without lists and split folders.
        split_seed: seed of that random split.
        flip_pair_names: classes that a horizontal flip changes: "NAME=NAME" for a flip pair, "NAME" for a class whose
            mirror image has no class.
    """

    source: str = ""
    train_list: str | None = None
    validation_list: str | None = None
    label_names: str | None = None
    validation_fraction: float = 0.1
    split_seed: int = 0
    flip_pair_names: Sequence[str] = ()


def source_folder(source: str) -> pathlib.Path:
    """Absolute path of the user's source folder.

    Raises:
        PreparationError: If it is not given or not a folder.
    """
    if not source:
        raise PreparationError("--source is required: the folder of the videos.")
    folder = pathlib.Path(source).expanduser().resolve()
    if not folder.is_dir():
        raise PreparationError(f"source {source} is not a folder.")
    return folder


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_folders(root: pathlib.Path) -> tuple[dict[str, list[pathlib.Path]], list[str]]:
    """Clips (files, or folders of frames) by class name, all sorted; and the other paths, with the reason."""
    classes, unused = {}, []
    for folder in _folders(root):
        if root.resolve().is_relative_to(folder.resolve()):
            unused.append(f"{folder}: a link to a folder above")
            continue
        classes[folder.name], others = find_clips(folder)
        unused += others
        if not classes[folder.name]:
            some = f", only {'; '.join(others[:5])}" if others else ""
            raise PreparationError(f"Class folder {folder} holds no video and no folder of frames{some}.")
        if classes[folder.name] == [folder]:
            raise PreparationError(
                f"Class folder {folder} holds images; expected videos, or a folder for the frames of each clip."
            )
    if not classes:
        raise PreparationError(f"{root} holds no class folders; expected {root}/CLASS_NAME/CLIP.")
    return classes, unused


def _clips(root: pathlib.Path, classes: dict[str, list[pathlib.Path]]) -> list[Clip]:
    return [
        Clip(path.relative_to(root).as_posix(), label, str(path))
        for label, paths in enumerate(classes.values())
        for path in paths
    ]


def split_by_folder(folders: dict[str, pathlib.Path]) -> Found:
    """Clips of folders of class folders, by split. They must hold the same classes."""
    found = {split: _class_folders(folder) for split, folder in folders.items()}
    classes = {split: by_name for split, (by_name, _) in found.items()}
    every = {name for by_name in classes.values() for name in by_name}
    differing = sorted(name for name in every if any(name not in by_name for by_name in classes.values()))
    if differing:
        where = " and ".join(map(str, folders.values()))
        raise PreparationError(f"Classes in only one of {where}: {', '.join(differing)}.")
    splits = {split: _clips(folder, classes[split]) for split, folder in folders.items()}
    unused = [path for _, others in found.values() for path in others]
    return Found(list(next(iter(classes.values()))), splits, unused)


def split_by_fraction(root: pathlib.Path, fraction: float, seed: int) -> Found:
    """Clips of a folder of class folders; a random fraction of every class is for validation.

    A class of at least two clips has at least one in each split.
    """
    if not 0 < fraction < 1:
        raise PreparationError(f"validation_fraction is {fraction}; expected a number between 0 and 1.")
    train, validation = {}, {}
    classes, unused = _class_folders(root)
    for label, (name, clips) in enumerate(classes.items()):
        order = np.random.default_rng((seed, label)).permutation(len(clips))
        size = min(max(round(fraction * len(clips)), 1), len(clips) - 1)
        validation[name] = [clips[i] for i in sorted(order[:size])]
        train[name] = [clips[i] for i in sorted(order[size:])]
    return Found(list(train), {"train": _clips(root, train), "validation": _clips(root, validation)}, unused)


class Line(NamedTuple):
    """Line of a list file; `num_frames` is None if the line does not state it."""

    path: str
    num_frames: int | None
    label: int


def parse_line(line: str, root: pathlib.Path) -> Line:
    """Parses a line `path label` or `path num_frames label`; the path may contain spaces.

    A number before the label belongs to the path if such a path exists under `root`.

    Raises:
        ValueError: If the line has another form.
    """
    path, label = line.rsplit(maxsplit=1)
    shorter, *num_frames = path.rsplit(maxsplit=1)
    if num_frames and num_frames[0].isdecimal() and not (root / path).exists():
        return Line(shorter, int(num_frames[0]), int(label))
    return Line(path.rstrip(), None, int(label))


def read_list(list_file: pathlib.Path, root: pathlib.Path) -> list[Clip]:
    """Clips of a list file, whose paths are relative to `root` or absolute."""
    clips = []
    for number, text in numbered_lines(list_file):
        try:
            line = parse_line(text, root)
        except ValueError:
            raise PreparationError(
                f"{list_file}, line {number}: expected 'path label' or 'path num_frames label', got {text!r}."
            ) from None
        clips.append(Clip(line.path, line.label, str(root / line.path), num_frames=line.num_frames))
    return clips


def refuse_shared(splits: Mapping[str, Sequence[Clip]]) -> None:
    """Checks that no footage belongs to two clips, whatever paths and links lead to it.

    Raises:
        PreparationError: If some does; names it.
    """
    first: dict[tuple[str, tuple[float, float] | None], Clip] = {}
    twice = []
    for clip in itertools.chain(*splits.values()):
        other = first.setdefault((os.path.realpath(str(clip.source)), clip.seconds), clip)
        if other is not clip:
            twice.append(f"{other} and {clip}")
    if twice:
        raise PreparationError(f"Listed more than once: {len(twice)} clips: {', '.join(twice[:5])}.")


def _check_labels(list_file: str, labels: set[int], allowed: set[int], expected: str) -> None:
    wrong = sorted(labels - allowed)
    if wrong:
        hint = " Do the labels count from 1 instead of 0?" if 0 not in labels else ""
        raise PreparationError(f"{list_file}: unexpected labels {wrong[:10]}; expected {expected}.{hint}")


def split_by_list(config: VideoFolderConfig) -> Found:
    """Clips of two list files. Without `label_names`, a class is named by its number."""
    if not (config.train_list and config.validation_list):
        raise PreparationError("train_list and validation_list go together; one of them is missing.")
    root = source_folder(config.source)
    files = {"train": config.train_list, "validation": config.validation_list}
    splits = {split: read_list(pathlib.Path(file), root) for split, file in files.items()}
    labels = {split: {clip.label for clip in clips} for split, clips in splits.items()}
    if config.label_names:
        names = read_names(pathlib.Path(config.label_names))
        expected = f"0 to {len(names) - 1}, the {len(names)} names of {config.label_names}"
        _check_labels(files["train"], labels["train"], set(range(len(names))), expected)
        _check_labels(files["validation"], labels["validation"], set(range(len(names))), expected)
    else:
        names = [str(label) for label in range(len(labels["train"]))]
        expected = f"0 to {len(names) - 1}, as the training list holds {len(names)} different ones"
        _check_labels(files["train"], labels["train"], set(range(len(names))), expected)
        _check_labels(files["validation"], labels["validation"], labels["train"], expected)
    return Found(names, splits, [])


def _split_folders(source: pathlib.Path) -> dict[str, pathlib.Path]:
    """Folders of the splits, by split; none if the source holds class folders.

    A folder test/ is a split beside others or alone, and else a class.
    """
    names = [folder.name for folder in _folders(source)]
    if "validation" in names and "val" in names:
        raise PreparationError(f"{source} holds both validation/ and val/; expected one of them.")
    known = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
    found = {split: source / name for name, split in known.items() if name in names}
    return {} if list(found) == ["test"] != names else found


def find_splits(config: VideoFolderConfig) -> Found:
    """Clips of every split: by list, by folder or by a seeded fraction."""
    source = source_folder(config.source)
    if config.train_list or config.validation_list:
        return split_by_list(config)
    if config.label_names:
        raise PreparationError("label_names is for lists; folders carry the names of their classes.")
    folders = _split_folders(source)
    if folders:
        return split_by_folder(folders)
    return split_by_fraction(source, config.validation_fraction, config.split_seed)


def _flip_pair(text: str, class_names: Sequence[str]) -> tuple[int, ...]:
    """Ids of the classes in "NAME" or "NAME=NAME"; a name may contain "=" if the whole text is one name."""
    names = [text] if text in class_names else text.split("=")
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise PreparationError(
            f"flip_pairs: no such class: {', '.join(map(repr, unknown))}; there are {', '.join(class_names)}."
        )
    if len(names) > 2:
        raise PreparationError(f"flip_pairs: expected 'NAME' or 'NAME=NAME', got {text!r}.")
    return tuple(class_names.index(name) for name in names)


def _flip_pairs(texts: Sequence[str], class_names: Sequence[str]) -> list[tuple[int, ...]]:
    groups = [_flip_pair(text, class_names) for text in texts]
    ids = [id for group in groups for id in group]
    twice = sorted({class_names[id] for id in ids if ids.count(id) > 1})
    if twice:
        raise PreparationError(f"flip_pairs: named more than once: {', '.join(twice)}.")
    return groups


class VideoFolder(ClipBuilder):
    """A user's videos, in any container and codec that FFmpeg reads, or folders of frames."""

    @functools.cached_property
    def _found(self) -> Found:
        found = find_splits(self.builder_config)
        names, splits = found.class_names, found.splits
        # TFDS stores one name per line, without surrounding spaces.
        unfit = [name for name in names if not name or name != name.strip() or "\n" in name]
        unfit += {name for name in names if names.count(name) > 1}
        if unfit:
            raise PreparationError(
                f"Class names must be distinct, non-empty single lines without surrounding spaces; invalid: {unfit}."
            )
        for split, clips in splits.items():
            if not clips:
                raise PreparationError(f"Split {split!r} of {self.builder_config.source} holds no clip.")
            for clip in clips:
                if clip.id != clip.id.encode(errors="replace").decode():
                    raise PreparationError(f"Not UTF-8: the file name {clip.id!a}. Rename it.")
        refuse_shared(splits)
        return found

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Sorted names of the class folders, or the class names of the lists."""
        return self._found.class_names

    @property
    def flip_pairs(self) -> Sequence[Sequence[int]]:  # type: ignore[override]
        """Classes that the user declares to change under a horizontal flip."""
        return _flip_pairs(self.builder_config.flip_pair_names, self.class_names)

    def check(self) -> None:
        """Checks the clip lists, and warns of class names that sound as if a horizontal flip changed them."""
        super().check()
        declared = {label for group in self.flip_pairs for label in group}
        suspects = [name for i, name in enumerate(self.class_names) if i not in declared and _names_a_direction(name)]
        if suspects:
            tqdm.write(
                f"Warning: a horizontal flip may change these classes: {', '.join(suspects)}. Training flips half of "
                "the clips and keeps their label. Prepare with --flip_pairs, or train with --config.data.flip=False.",
                file=sys.stderr,
            )

    def clips(self) -> dict[str, Sequence[Clip]]:
        """Available clips by split."""
        return {split: [clip for clip in clips if _is_there(clip)] for split, clips in self._found.splits.items()}

    def missing(self) -> dict[str, list[str]]:
        """Ids of listed clips without a file, by split."""
        return {
            split: [clip.id for clip in clips if not _is_there(clip)] for split, clips in self._found.splits.items()
        }

    @functools.cached_property
    def _flow(self) -> list[str]:
        sources = [pathlib.Path(str(clip.source)) for clips in self._found.splits.values() for clip in clips]
        return [flow for source in sources if source.is_dir() for flow in flow_beside_frames(source)]

    def extra(self) -> list[str]:
        """Paths in class folders that are no clips, and optical flow beside frames, with the reason."""
        return self._found.unused + self._flow

    def origin(self) -> dict[str, Any]:
        """Source folder and split settings."""
        fields = ("train_list", "validation_list", "label_names", "validation_fraction", "split_seed")
        settings = {name: getattr(self.builder_config, name) for name in fields}
        return {"source": str(pathlib.Path(self.builder_config.source).resolve()), **settings}


def _names_a_direction(class_name: str) -> bool:
    return not DIRECTIONS.isdisjoint(re.split("[^a-z]+", class_name.lower()))


def _is_there(clip: Clip) -> bool:
    return pathlib.Path(str(clip.source)).exists()
