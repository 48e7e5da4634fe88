"""Common base of the public benchmarks: published annotations, videos found by name, official clip counts."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rsa_jax.preparation.archives import ArchiveError, find_archives, unpack_all
from rsa_jax.preparation.builder import ClipBuilder, ClipConfig
from rsa_jax.preparation.clip import Clip
from rsa_jax.preparation.datasets.lists import read_names, read_text
from rsa_jax.preparation.datasets.video_folder import read_list, refuse_shared, source_folder
from rsa_jax.preparation.sources import find_file, find_videos, flow_beside_frames
from rsa_jax.preparation.store import PreparationError, unpacked_folder


@dataclasses.dataclass(eq=False, kw_only=True)
class OfficialConfig(ClipConfig):
    """Location of the download.

    Attributes:
        source: folder of the videos, at any depth and under any folder names, or of the archives.
        annotations: folder of the annotation files, if not `source`.
        train_list: TSN's list of the training clips, lines of `path num_frames label`; replaces the official one.
        validation_list: TSN's list of the validation clips.
        label_names: with lists, a file of class names, line i for label i; None: the official names.
    """

    source: str = ""
    annotations: str | None = None
    train_list: str | None = None
    validation_list: str | None = None
    label_names: str | None = None


class Place(NamedTuple):
    """Possible location of a clip: video name without extension, and (start, end) in seconds if only a part of it."""

    name: str
    seconds: tuple[float, float] | None = None


class Listed(NamedTuple):
    """A clip as the annotations list it, with its number of frames if stated. The first available place is used."""

    id: str
    label: int
    places: tuple[Place, ...]
    num_frames: int | None = None


class Annotations:
    """The annotation files of a download.

    Args:
        folders: folders to search, up to two levels down.
        archives: unopened archives that may hold them.

    Attributes:
        used: SHA-256 of the requested files, by name.
        last: the file requested last.
    """

    def __init__(self, folders: Sequence[pathlib.Path], archives: Sequence[str] = ()):
        self._folders, self._archives = folders, archives
        self.used: dict[str, str] = {}
        self.last: pathlib.Path | None = None

    def find(self, *names: str) -> pathlib.Path | None:
        """First file with one of these names, which differ between releases; None if there is none."""
        path = find_file(names, self._folders)
        if path:
            self.used[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            self.last = path
        return path

    def get(self, *names: str) -> pathlib.Path:
        """As `find`, for a required file.

        Raises:
            PreparationError: If there is none.
        """
        path = self.find(*names)
        if path is None:
            where = " or ".join(str(folder) for folder in self._folders)
            unopened = f" These archives were not opened: {', '.join(self._archives)}." if self._archives else ""
            raise PreparationError(
                f"There is no {' or '.join(names)} in {where}, nor up to two levels below.{unopened}"
            )
        return path


def read_json(path: pathlib.Path) -> Any:
    """Contents of a JSON file.

    Raises:
        PreparationError: If it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise PreparationError(f"{path}: expected JSON: {error}.") from error


def bad_line(path: pathlib.Path, number: int, line: str, expected: str) -> PreparationError:
    """Error about a malformed line; `number` counts from 1."""
    return PreparationError(f"{path}, line {number}: expected {expected}, got {line!r}.")


class OfficialBuilder(ClipBuilder):
    """Base class of the public benchmarks. A subclass reads the annotations.

    The split that papers evaluate on is called "validation", whatever its official name.
    """

    configs: Sequence[OfficialConfig] = (OfficialConfig(name="default"),)
    # Pairs of classes that a horizontal flip exchanges, by name.
    mirror_names: Sequence[tuple[str, str]] = ()
    num_classes: int

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Class names in the order of their ids."""
        raise NotImplementedError

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Listed clips by split."""
        raise NotImplementedError

    def unlabelled(self, annotations: Annotations) -> set[str]:
        """Names of the videos of test splits without published labels."""
        return set()

    @functools.cached_property
    def _folders(self) -> list[pathlib.Path]:
        """Folders of annotations and videos. Archives are unpacked if something is missing without them."""
        config = self.builder_config
        folders = [source_folder(folder) for folder in (config.source, config.annotations) if folder is not None]
        if not config.unpack:
            return folders
        try:
            archives = find_archives(folders[0])
            if not archives or self._is_whole_without_archives():
                return folders
            target = unpacked_folder(pathlib.Path(self.data_path))
            unpack_all(archives, target)
            return [*folders, target]
        except ArchiveError as error:
            raise PreparationError(f"{error}.") from error

    def _is_whole_without_archives(self) -> bool:
        try:
            config = dataclasses.replace(self.builder_config, unpack=False)
            builder = type(self)(data_dir=pathlib.Path(self.data_path).parents[2], config=config)
            return not any(builder.missing().values())
        except PreparationError:
            return False

    @functools.cached_property
    def _annotations(self) -> Annotations:
        return Annotations(self._folders, self.archives())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Annotations]:
        """Turns errors in an annotation file into a `PreparationError` that names it."""
        try:
            yield self._annotations
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise PreparationError(f"{self._annotations.last}: not of the expected form ({what}).") from error

    @functools.cached_property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """The official names, or those of `label_names`."""
        label_names = self.builder_config.label_names
        with self._reading() as annotations:
            names = read_names(pathlib.Path(label_names)) if label_names else self.read_class_names(annotations)
        where = label_names or annotations.last
        if len(names) != self.num_classes:
            raise PreparationError(f"{where}: expected {self.num_classes} class names, got {len(names)}.")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise PreparationError(f"{where}: class names that come more than once: {', '.join(repeated[:5])}.")
        return names

    @functools.cached_property
    def _listed(self) -> dict[str, list[Listed]]:
        config = self.builder_config
        if not (config.train_list or config.validation_list):
            with self._reading() as annotations:
                splits = self.read_clips(annotations, self.class_names)
            for split, clips in splits.items():
                self._check_labels(f"Annotations of {split!r}", [listed.label for listed in clips])
            return splits
        if not (config.train_list and config.validation_list):
            raise PreparationError("train_list and validation_list go together; one of them is missing.")
        lists = {"train": config.train_list, "validation": config.validation_list}
        return {
            split: [
                Listed(clip.id, clip.label, (Place(str(clip.source)),), clip.num_frames)
                for clip in self._read_list(path)
            ]
            for split, path in lists.items()
        }

    def _read_list(self, path: str) -> list[Clip]:
        clips = read_list(pathlib.Path(path), source_folder(self.builder_config.source))
        self._check_labels(path, [clip.label for clip in clips])
        return clips

    def _check_labels(self, where: str, labels: Sequence[int]) -> None:
        if labels and not 0 <= min(labels) <= max(labels) < self.num_classes:
            hint = " Do the labels count from 1 instead of 0?" if min(labels) == 1 else ""
            raise PreparationError(
                f"{where}: expected labels from 0 to {self.num_classes - 1}, got {min(labels)} to {max(labels)}.{hint}"
            )

    @functools.cached_property
    def _videos(self) -> tuple[dict[str, pathlib.Path], list[str]]:
        names = {place.name for clips in self._listed.values() for clip in clips for place in clip.places}
        if self.builder_config.train_list:  # lists give the paths
            return {name: pathlib.Path(name) for name in names if pathlib.Path(name).exists()}, []
        with self._reading() as annotations:
            others = self.unlabelled(annotations)
        try:
            found, extra = find_videos(self._folders, names | others)
        except ValueError as error:
            raise PreparationError(f"{error}.") from error
        return {name: path for name, path in found.items() if name in names}, extra

    def _clip(self, listed: Listed) -> Clip | None:
        """Clip with its video; None if no video is available."""
        for place in listed.places:
            path = self._videos[0].get(place.name)
            # A folder of frames has no times by which to locate a part.
            if path and not (place.seconds and path.is_dir()):
                return Clip(listed.id, listed.label, str(path), place.seconds, listed.num_frames)
        return None

    @functools.cached_property
    def _clips(self) -> dict[str, list[tuple[Listed, Clip | None]]]:
        found = {split: [(listed, self._clip(listed)) for listed in clips] for split, clips in self._listed.items()}
        refuse_shared({split: [clip for _, clip in clips if clip] for split, clips in found.items()})
        return found

    def clips(self) -> dict[str, Sequence[Clip]]:
        """Clips with an available video, by split, in the order of the annotations."""
        return {split: [clip for _, clip in clips if clip] for split, clips in self._clips.items()}

    def missing(self) -> dict[str, list[str]]:
        """Ids of listed clips without a video, by split."""
        return {split: [listed.id for listed, clip in clips if not clip] for split, clips in self._clips.items()}

    def archives(self) -> list[str]:
        """Archives in the source, if they are not to be unpacked."""
        return [] if self.builder_config.unpack else list(find_archives(source_folder(self.builder_config.source)))

    @functools.cached_property
    def _flow(self) -> list[str]:
        sources = {str(clip.source) for clips in self.clips().values() for clip in clips}
        return [
            flow
            for source in sorted(sources)
            if os.path.isdir(source)
            for flow in flow_beside_frames(pathlib.Path(source))
        ]

    def extra(self) -> list[str]:
        """Videos that no split lists, and optical flow beside frames."""
        return self._videos[1] + self._flow

    @property
    def flip_pairs(self) -> Sequence[Sequence[int]]:  # type: ignore[override]
        """Ids of the pairs of `mirror_names`."""
        names = self.class_names
        unknown = [name for pair in self.mirror_names for name in pair if name not in names]
        if unknown:
            raise PreparationError(f"Among the class names there is no {', '.join(map(repr, unknown))}.")
        return [(names.index(one), names.index(other)) for one, other in self.mirror_names]

    def origin(self) -> dict[str, Any]:
        """Location of the download, and hashes of the annotation files used."""
        config = self.builder_config
        lists = {name: getattr(config, name) for name in ("train_list", "validation_list", "label_names")}
        source = str(pathlib.Path(config.source).resolve())
        return {"source": source, "annotations_sha256": self._annotations.used, **lists}
