"""Common base of all data sets: a TFDS builder that stores clips as JPEG frames, with their provenance."""

import collections
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rsa_jax.extras import missing
from rsa_jax.files import write_json
from rsa_jax.preparation.clip import HEIGHT, QUALITY, STRIDE, WIDTH, Clip, encode_clip
from rsa_jax.preparation.frame_index import index_path
from rsa_jax.preparation.inventory import Inventory, SplitInventory
from rsa_jax.preparation.shards import Shards
from rsa_jax.preparation.store import FORMAT_VERSION, PreparationError, label_map_hash, unfinished_folder

try:
    import av
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_builder import FileReaderBuilder
    from tqdm import tqdm
except ModuleNotFoundError as error:
    raise missing(error, "train") from error


@dataclasses.dataclass(eq=False, kw_only=True)
class ClipConfig(tfds.core.BuilderConfig):
    """Storage options of a data set.

    Attributes:
        height: stored frame height in pixels.
        width: stored frame width in pixels.
        quality: JPEG quality, 1 to 100.
        stride: keep every `stride`-th frame of the video.
        max_failed_fraction: largest fraction of clips, over all splits, that may be left out.
        allow_missing: prepare an official data set even if clips are missing.
        unpack: whether archives may be unpacked when files are missing without them.
        workers: number of decoding processes; 1: decode in this process.
    """

    height: int = HEIGHT
    width: int = WIDTH
    quality: int = QUALITY
    stride: int = STRIDE
    max_failed_fraction: float = 0.05
    allow_missing: bool = False
    unpack: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        limits = {"height": 4096, "width": 4096, "quality": 100, "stride": 1000, "workers": 1024}
        for name, largest in limits.items():
            if not 1 <= getattr(self, name) <= largest:
                raise PreparationError(f"{name} is {getattr(self, name)}; expected 1 to {largest}.")


def _versions() -> dict[str, str]:
    """Versions of everything that the stored frames depend on, by name."""
    versions = {"python": platform.python_version()}
    for package in ("rsa-jax", "av", "pillow", "tensorflow-datasets"):
        # A package run from a source tree, not installed, has no version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    libraries = {f"ffmpeg {name}": ".".join(map(str, v)) for name, v in av.library_versions.items()}
    return versions | libraries


class ClipBuilder(FileReaderBuilder):
    """Base class of all data sets. A subclass defines the classes and the clips.

    An example is {frames: T JPEG images, label, id}. Beside the data, SPLIT.frames.npz holds the places of the frames,
    metadata.json the provenance and report.json the inventory.
    """

    VERSION = tfds.core.Version(FORMAT_VERSION)
    builder_config: Any  # a ClipConfig
    # Variants by name. Not TFDS's BUILDER_CONFIGS, whose fields cannot be changed.
    configs: Sequence[ClipConfig] = ()
    url_infos = None  # nothing is downloaded; TFDS would look for checksums beside the code

    # Defined by subclasses.
    class_names: Sequence[str]
    # Ids of the classes that a horizontal flip changes, each listed once: pairs (a, b) that it exchanges, and (a,) for
    # a class whose mirror image has no class.
    flip_pairs: Sequence[Sequence[int]] = ()
    # Published number of clips per split.
    official_sizes: Mapping[str, int] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Some of these names are taken in TFDS's own registry.
        super().__init_subclass__(skip_registration=True, **kwargs)

    def clips(self) -> dict[str, Sequence[Clip]]:
        """Clips with an available video, by split, in the order in which they are stored."""
        raise NotImplementedError

    def origin(self) -> dict[str, Any]:
        """Source of the clips and how they were split, for the provenance."""
        raise NotImplementedError

    def missing(self) -> dict[str, list[str]]:
        """Ids of listed clips without a video, by split."""
        return {}

    def extra(self) -> list[str]:
        """Available videos that are not listed."""
        return []

    def archives(self) -> list[str]:
        """Archives that were not opened."""
        return []

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the stored frames."""
        return self.builder_config.height, self.builder_config.width

    def inventory(self) -> Inventory:
        """Listed and missing clips. For a prepared data set, also the clips left out."""
        missing, splits = self.missing(), {}
        for split, clips in self.clips().items():
            absent, present = missing.get(split, []), {clip.label for clip in clips}
            splits[split] = SplitInventory(
                official=self.official_sizes.get(split),
                listed=len(clips) + len(absent),
                missing=absent,
                left_out=self._left_out.get(split, []),
                stored=self.info.splits[split].num_examples if split in self.info.splits else None,
                empty_classes=[name for i, name in enumerate(self.class_names) if i not in present],
            )
        return Inventory(splits, self.extra(), self.archives())

    @functools.cached_property
    def _left_out(self) -> dict[str, list[dict[str, str]]]:
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        frame = tfds.features.Image(shape=(*self.frame_size, 3), encoding_format="jpeg")
        features = {
            "frames": tfds.features.Sequence(frame),
            "label": tfds.features.ClassLabel(names=self.class_names),
            "id": tfds.features.Text(),
        }
        # Stored in the order of `clips`: the pipeline shuffles the whole split anyway.
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        # TFDS calls this inside a temporary folder, which it renames on success.
        self.check()
        work = unfinished_folder(pathlib.Path(self.data_path))
        _begin(work, self._plan())
        splits = {name: Shards(work / name, clips) for name, clips in self.clips().items()}
        for name, shards in splits.items():
            self._write(name, shards)
            self._left_out[name] = shards.left_out()
        self._check_failures(splits)
        self.info.set_splits(tfds.core.SplitDict([self._place(name, shards) for name, shards in splits.items()]))
        counts = {name: split.num_examples for name, split in self.info.splits.items()}
        folder = pathlib.Path(self.data_path)
        (folder / "report.json").write_text(json.dumps(dataclasses.asdict(self.inventory()), indent=1))
        self.info.metadata.update(
            provenance=self._provenance(counts),
            flip_pairs=[list(group) for group in self.flip_pairs],
            files={path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        )

    def check(self) -> None:
        """Checks the clip lists before any video is decoded.

        Raises:
            PreparationError: If clips are missing without `allow_missing`, or the lists are invalid.
        """
        inventory = self.inventory()
        if inventory.problems() and not self.builder_config.allow_missing:
            wrong = "; ".join(inventory.problems())
            raise PreparationError(f"{inventory.text()}\n{wrong}. Use --allow_missing to prepare the available clips.")
        for split, clips in self.clips().items():
            if not clips:
                raise PreparationError(f"Split {split!r} holds no clip.")
            _refuse_repeated(f"Split {split!r}, listed more than once:", [clip.id for clip in clips])
        sources = [f"{clip.source} {clip.seconds or ''}".strip() for clips in self.clips().values() for clip in clips]
        _refuse_repeated("Listed more than once:", sources)
        _ = self.flip_pairs  # raises if its classes are unknown

    def _plan(self) -> dict[str, Any]:
        """Everything that the examples depend on. A different plan invalidates finished shards."""
        lines = [
            f"{split} {clip.id} {clip.label} {clip.seconds} {clip.num_frames} "
            f"{'' if callable(clip.source) else clip.source}"
            for split, clips in self.clips().items()
            for clip in clips
        ]
        digest = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
        return {
            "frame size": list(self.frame_size),
            "quality": self.builder_config.quality,
            "stride": self.builder_config.stride,
            "classes": label_map_hash(self.class_names),
            "clips": digest,
        }

    def _write(self, split: str, shards: Shards) -> None:
        def serialize(clip: Clip, frames: list[bytes]) -> bytes:
            example = {"frames": [io.BytesIO(f) for f in frames], "label": clip.label, "id": clip.id}
            return self.info.features.serialize_example(example)

        config, total = self.builder_config, len(self.clips()[split])
        encode = functools.partial(encode_clip, size=self.frame_size, quality=config.quality, stride=config.stride)
        with tqdm(desc=split, total=total, initial=shards.num_done, unit=" clips", mininterval=0.5) as progress:
            shards.write(serialize, encode=encode, workers=config.workers, progress=progress)

    def _check_failures(self, splits: Mapping[str, Shards]) -> None:
        kept = {name: sum(shard.examples for shard in shards.shards()) for name, shards in splits.items()}
        failed = sum(len(clips) for clips in self._left_out.values())
        total, allowed = sum(kept.values()) + failed, self.builder_config.max_failed_fraction
        message = ""
        if 0 in kept.values():
            message = f"Split {min(kept, key=kept.__getitem__)!r}: none of its clips could be decoded"
        elif failed > allowed * total:
            fraction = f"fraction {failed / total:.3f}; at most {allowed} allowed (max_failed_fraction)"
            message = f"{failed} of {total} clips could not be decoded: {fraction}"
        if message:
            raise PreparationError(
                f"{self.inventory().text()}\n{message}. No data set was created. The next try keeps the decoded clips."
            )

    def _place(self, split: str, shards: Shards) -> tfds.core.SplitInfo:
        """Puts the shards of a split into the data set's folder, under TFDS's names, and their index beside them."""
        done = [shard for shard in shards.shards() if shard.examples]
        template, size = self._get_filename_template(split), 0
        for i, shard in enumerate(done):
            size += shards.path(shard).stat().st_size
            _link(shards.path(shard), pathlib.Path(template.sharded_filepath(shard_index=i, num_shards=len(done))))
        if index := shards.index():
            index.save(index_path(pathlib.Path(self.data_path), split))
        lengths = [shard.examples for shard in done]
        return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)

    def _provenance(self, counts: dict[str, int]) -> dict[str, Any]:
        return {
            **self.origin(),
            "num_examples": counts,
            "frame_size": list(self.frame_size),
            "jpeg_quality": self.builder_config.quality,
            "stride": self.builder_config.stride,
            "label_map_sha256": label_map_hash(self.class_names),
            "missing": {split: len(ids) for split, ids in self.missing().items()},
            "left_out": [{"split": split, **clip} for split, clips in self._left_out.items() for clip in clips],
            "versions": _versions(),
            "prepared": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def _refuse_repeated(what: str, names: Sequence[str]) -> None:
    """Raises a `PreparationError` if names are repeated; its message starts with `what`."""
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise PreparationError(f"{what} {len(repeated)} clips: {', '.join(repeated[:5])}.")


def _link(path: pathlib.Path, target: pathlib.Path) -> None:
    """Hard-links a file, so that a later failure loses nothing. Renames it if the file system has no hard links."""
    try:
        os.link(path, target)
    except OSError:
        path.rename(target)


def _begin(work: pathlib.Path, plan: dict[str, Any]) -> None:
    """Keeps the files of an interrupted preparation with the same plan; clears the folder otherwise."""
    record = work / "plan.json"
    try:
        before = json.loads(record.read_text())
    except (OSError, ValueError):
        before = {}
    if before == plan:
        return
    if before:
        differing = ", ".join(name for name in plan if plan[name] != before.get(name))
        message = f"Discarding an interrupted preparation with different settings ({differing}); starting again."
        tqdm.write(message, file=sys.stderr)
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    write_json(record, plan)
