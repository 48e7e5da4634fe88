"""What all data sets share: a TFDS builder of clips as JPEG frames, with provenance, whole or not there."""

import contextlib
import dataclasses
import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import io
import os
import pathlib
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from rsa_jax.data.clip import Clip, encode_clip
from rsa_jax.data.parallel import parallel_map

# TensorFlow only reads data here; otherwise it would take the accelerators' memory from JAX.
tf.config.set_visible_devices([], "GPU")


class PreparationError(RuntimeError):
    """A data set could not be prepared, or is not there; says what to do.

    `left_out` holds the clips that could not be decoded until then, as `ClipBuilder.left_out` does.
    """

    def __init__(self, message: str, left_out: Sequence[dict[str, str]] = ()):
        super().__init__(message)
        self.left_out = left_out


@dataclasses.dataclass(eq=False, kw_only=True)
class ClipConfig(tfds.core.BuilderConfig):
    """How a data set is stored.

    Attributes:
      height: of the stored frames in pixels.
      width: of the stored frames in pixels.
      quality: of JPEG, 1 to 100.
      max_failed_share: largest share of clips, over all splits, that may be left out.
      workers: processes that decode; 1: this one.
    """

    height: int = 240
    width: int = 320
    quality: int = 90
    max_failed_share: float = 0.05
    workers: int = 1

    def __post_init__(self) -> None:
        limits = {"height": 4096, "width": 4096, "quality": 100, "workers": 1024}
        for name, largest in limits.items():
            if not 1 <= getattr(self, name) <= largest:
                raise PreparationError(f"{name} is {getattr(self, name)}; expected 1 to {largest}.")


def label_map_hash(class_names: Sequence[str]) -> str:
    """SHA-256 of the class names, one per line, in the order of their ids."""
    return hashlib.sha256("\n".join(class_names).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("rsa-jax", "av", "pillow", "tensorflow-datasets"):
        # Without installation, from a source tree, a package has no version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    libraries = {f"ffmpeg {name}": ".".join(map(str, v)) for name, v in av.library_versions.items()}
    return versions | libraries


def _flush(folder: pathlib.Path) -> dict[str, int]:
    """Waits until the files are on the disk: a power cut must not leave their names alone."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file)
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


class ClipBuilder(tfds.core.GeneratorBasedBuilder):
    """Base of all data sets. A subclass says what the classes and the clips are; the rest is here.

    An example is {frames: T JPEG pictures, label, id}. Provenance lies in metadata.json beside the data.
    """

    VERSION = tfds.core.Version("1.0.0")
    builder_config: Any  # a ClipConfig
    url_infos = None  # nothing is downloaded; TFDS would look for checksums beside the code

    # What a subclass defines.
    class_names: Sequence[str]
    # Classes that a mirror turns into others: their clips are never flipped.
    directional: Sequence[int] = ()

    def clips(self) -> dict[str, Sequence[Clip]]:
        """The clips of every split, in the order in which they are stored."""
        raise NotImplementedError

    def origin(self) -> dict[str, Any]:
        """Where the clips came from and how they were split: goes into the provenance."""
        raise NotImplementedError

    @functools.cached_property
    def left_out(self) -> list[dict[str, str]]:
        """Clips that could not be decoded: split, id and reason of each."""
        return []

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the stored frames."""
        return self.builder_config.height, self.builder_config.width

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

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split, clips) for split, clips in self.clips().items()}

    def _generate_examples(self, split: str, clips: Sequence[Clip]) -> Iterator[tuple[int, dict[str, Any]]]:
        encode = functools.partial(encode_clip, size=self.frame_size, quality=self.builder_config.quality)
        results = parallel_map(encode, clips, self.builder_config.workers)
        kept = 0
        for clip, frames in tqdm(results, desc=split, total=len(clips), unit=" clips", mininterval=0.5):
            if isinstance(frames, str):
                self.left_out.append({"split": split, "id": clip.id, "reason": frames})
                continue
            yield kept, {"frames": [io.BytesIO(f) for f in frames], "label": clip.label, "id": clip.id}
            kept += 1
        if not kept:
            message = f"Split {split!r}: none of its {len(clips)} clips could be decoded."
            raise PreparationError(message, self.left_out)

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        # TFDS calls it inside a temporary folder, which gets its name after all has gone well.
        super()._download_and_prepare(*args, **kwargs)
        counts = {name: split.num_examples for name, split in self.info.splits.items()}
        self._check_failures(sum(counts.values()))
        self.info.metadata.update(
            provenance=self._provenance(counts),
            directional=list(self.directional),
            files=_flush(pathlib.Path(self.data_dir)),
        )

    def _check_failures(self, kept: int) -> None:
        failed, allowed = len(self.left_out), self.builder_config.max_failed_share
        if failed > allowed * (kept + failed):
            raise PreparationError(
                f"{failed} of {kept + failed} clips could not be decoded: "
                f"a share of {failed / (kept + failed):.3f}, allowed are {allowed} "
                "(max_failed_share). Nothing was stored.",
                self.left_out,
            )

    def _provenance(self, counts: dict[str, int]) -> dict[str, Any]:
        return {
            **self.origin(),
            "num_examples": counts,
            "frame_size": list(self.frame_size),
            "jpeg_quality": self.builder_config.quality,
            "label_map_sha256": label_map_hash(self.class_names),
            "left_out": self.left_out,
            "versions": _versions(),
            "prepared": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def data_path(name: str, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Folder of a data set: DATA_DIR/builder/config/version. A name without "/config" means "/default"."""
    builder, _, config = name.partition("/")
    config = config or "default"
    if not all(re.fullmatch(r"\w[\w.-]*", part) for part in (builder, config)):
        raise PreparationError(
            f"Data set name {name!r}: expected 'builder' or 'builder/config', of letters, digits and _-."
        )
    return pathlib.Path(data_dir).expanduser() / builder / config / str(ClipBuilder.VERSION)


def open_prepared(path: pathlib.Path) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set. It needs nothing but the folder.

    Raises:
      FileNotFoundError: there is no such folder.
      PreparationError: the data set is not whole.
    """
    if not path.is_dir():
        raise FileNotFoundError(path)
    try:
        builder = tfds.builder_from_directory(path)
        for name, size in builder.info.metadata["files"].items():
            if (path / name).stat().st_size != size:
                raise ValueError(f"{name} should have {size} bytes")
    except Exception as error:
        raise PreparationError(
            f"The data set in {path} is not whole ({type(error).__name__}: {error}). "
            "Prepare it again with --overwrite, or remove that folder."
        ) from error
    return builder


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """One process at a time. The system frees the lock of a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TFDS's notes and its nested progress bars, which would bury ours."""
    loggers = (logging.get_absl_logger(), tf.get_logger())
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel("ERROR")
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _remove_leftovers(path: pathlib.Path) -> None:
    """Removes what is at `path`, and what interrupted runs left beside it."""
    if path.exists():
        path.rename(path.with_name(f"incomplete.old_{path.name}"))  # never half removed under its own name
    for leftover in path.parent.glob("incomplete.*"):
        shutil.rmtree(leftover)


def prepare(builder: Callable[[], ClipBuilder], path: pathlib.Path, *, overwrite: bool = False) -> ClipBuilder | None:
    """Prepares a data set in `path`, unless it is there.

    An interrupted run leaves nothing under that name, and the next run starts again.

    Args:
      builder: makes the builder; called after an old data set was removed, which it would otherwise read.
      path: from `data_path`.
      overwrite: remove what is there first.

    Returns:
      The builder, or None if the data set was already prepared.
    """
    with _locked(path.parent), quiet():
        if path.exists() and not overwrite:
            open_prepared(path)
            return None
        _remove_leftovers(path)
        made = builder()
        made.download_and_prepare(file_format="array_record")
        return made
