"""The `video_folder` data set: a user's own videos, in folders named by class or in list files."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsa_jax.preparation.builder import ClipBuilder, ClipConfig
from rsa_jax.preparation.clip import Clip
from rsa_jax.preparation.store import PreparationError

Splits = dict[str, list[Clip]]


@dataclasses.dataclass(eq=False, kw_only=True)
class VideoFolderConfig(ClipConfig):
    """Location of the videos and how they are split.

    Attributes:
        source: folder of the videos. If it holds train/ and validation/ (or val/), these are the splits.
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


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _class_folders(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Clips (files, or folders of frames) by class name, all sorted."""
    classes = {folder.name: _visible(folder) for folder in _visible(root) if folder.is_dir()}
    if not classes:
        raise PreparationError(f"{root} holds no class folders; expected {root}/CLASS_NAME/CLIP.")
    for name, clips in classes.items():
        if not clips:
            raise PreparationError(f"Class folder {root / name} is empty.")
    return classes


def _clips(root: pathlib.Path, classes: dict[str, list[pathlib.Path]]) -> list[Clip]:
    return [
        Clip(path.relative_to(root).as_posix(), label, str(path))
        for label, paths in enumerate(classes.values())
        for path in paths
    ]


def split_by_folder(train: pathlib.Path, validation: pathlib.Path) -> tuple[list[str], Splits]:
    """Class names and clips of two folders of class folders, which must hold the same classes."""
    classes = {"train": _class_folders(train), "validation": _class_folders(validation)}
    differing = sorted(classes["train"].keys() ^ classes["validation"].keys())
    if differing:
        raise PreparationError(f"Classes in only one of {train} and {validation}: {', '.join(differing)}.")
    splits = {
        "train": _clips(train, classes["train"]),
        "validation": _clips(validation, classes["validation"]),
    }
    return list(classes["train"]), splits


def split_by_fraction(root: pathlib.Path, fraction: float, seed: int) -> tuple[list[str], Splits]:
    """Class names and clips of a folder of class folders; a random fraction of every class is for validation.

    A class of at least two clips has at least one in each split.
    """
    if not 0 < fraction < 1:
        raise PreparationError(f"validation_fraction is {fraction}; expected a number between 0 and 1.")
    train, validation = {}, {}
    for label, (name, clips) in enumerate(_class_folders(root).items()):
        order = np.random.default_rng((seed, label)).permutation(len(clips))
        size = min(max(round(fraction * len(clips)), 1), len(clips) - 1)
        validation[name] = [clips[i] for i in sorted(order[:size])]
        train[name] = [clips[i] for i in sorted(order[size:])]
    return list(train), {"train": _clips(root, train), "validation": _clips(root, validation)}


def parse_line(line: str, root: pathlib.Path) -> tuple[str, int]:
    """Path and label of a line `path label` or `path num_frames label`; the path may contain spaces.

    A number before the label belongs to the path if such a path exists under `root`.

    Raises:
        ValueError: If the line has another form.
    """
    path, label = line.rsplit(maxsplit=1)
    shorter, _, num_frames = path.rpartition(" ")
    if shorter and num_frames.isdecimal() and not (root / path).exists():
        path = shorter
    return path.rstrip(), int(label)


def read_list(list_file: pathlib.Path, root: pathlib.Path) -> list[Clip]:
    """Clips of a list file, whose paths are relative to `root` or absolute."""
    clips = []
    for number, line in enumerate(list_file.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            path, label = parse_line(line.strip(), root)
        except ValueError:
            raise PreparationError(
                f"{list_file}, line {number}: expected 'path label' or 'path num_frames label', got {line!r}."
            ) from None
        clips.append(Clip(path, label, str(root / path)))
    return clips


def _check_labels(list_file: str, labels: set[int], allowed: set[int], expected: str) -> None:
    wrong = sorted(labels - allowed)
    if wrong:
        hint = " Do the labels count from 1 instead of 0?" if 0 not in labels else ""
        raise PreparationError(f"{list_file}: unexpected labels {wrong[:10]}; expected {expected}.{hint}")


def split_by_list(config: VideoFolderConfig) -> tuple[list[str], Splits]:
    """Class names and clips of two list files. Without `label_names`, a class is named by its number."""
    if not (config.train_list and config.validation_list):
        raise PreparationError("train_list and validation_list go together; one of them is missing.")
    root = source_folder(config.source)
    files = {"train": config.train_list, "validation": config.validation_list}
    splits = {split: read_list(pathlib.Path(file), root) for split, file in files.items()}
    labels = {split: {clip.label for clip in clips} for split, clips in splits.items()}
    if config.label_names:
        names = pathlib.Path(config.label_names).read_text(encoding="utf-8-sig").splitlines()
        expected = f"0 to {len(names) - 1}, the {len(names)} names of {config.label_names}"
        _check_labels(files["train"], labels["train"], set(range(len(names))), expected)
        _check_labels(files["validation"], labels["validation"], set(range(len(names))), expected)
    else:
        names = [str(label) for label in range(len(labels["train"]))]
        expected = f"0 to {len(names) - 1}, as the training list holds {len(names)} different ones"
        _check_labels(files["train"], labels["train"], set(range(len(names))), expected)
        _check_labels(files["validation"], labels["validation"], labels["train"], expected)
    return names, splits


def find_splits(config: VideoFolderConfig) -> tuple[list[str], Splits]:
    """Class names and the clips of every split: by list, by folder or by a seeded fraction."""
    source = source_folder(config.source)
    if config.train_list or config.validation_list:
        return split_by_list(config)
    if config.label_names:
        raise PreparationError("label_names is for lists; folders carry the names of their classes.")
    train = source / "train"
    validation = source / ("validation" if (source / "validation").is_dir() else "val")
    if train.is_dir() and validation.is_dir():
        return split_by_folder(train, validation)
    if train.is_dir() or validation.is_dir():
        found, missing = ("train", "validation") if train.is_dir() else (validation.name, "train")
        raise PreparationError(f"{source} holds {found}/ but no {missing}/.")
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
    def _found(self) -> tuple[list[str], Splits, list[tuple[int, ...]]]:
        names, splits = find_splits(self.builder_config)
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
        return names, splits, _flip_pairs(self.builder_config.flip_pair_names, names)

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Sorted names of the class folders, or the class names of the lists."""
        return self._found[0]

    @property
    def flip_pairs(self) -> Sequence[Sequence[int]]:  # type: ignore[override]
        """Classes that the user declares to change under a horizontal flip."""
        return self._found[2]

    def clips(self) -> dict[str, Sequence[Clip]]:
        """Available clips of the splits "train" and "validation"."""
        return {split: [clip for clip in clips if _is_there(clip)] for split, clips in self._found[1].items()}

    def missing(self) -> dict[str, list[str]]:
        """Ids of listed clips without a file, by split."""
        return {split: [clip.id for clip in clips if not _is_there(clip)] for split, clips in self._found[1].items()}

    def origin(self) -> dict[str, Any]:
        """Source folder and split settings."""
        fields = ("train_list", "validation_list", "label_names", "validation_fraction", "split_seed")
        settings = {name: getattr(self.builder_config, name) for name in fields}
        return {"source": str(pathlib.Path(self.builder_config.source).resolve()), **settings}


def _is_there(clip: Clip) -> bool:
    return pathlib.Path(str(clip.source)).exists()
