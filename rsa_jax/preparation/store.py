"""Prepared data sets on disk: their folders, preparing under a lock, opening."""

import contextlib
import fcntl
import hashlib
import io
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rsa_jax.extras import missing

try:
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from absl import logging
    from tqdm import tqdm
except ModuleNotFoundError as error:
    raise missing(error, "train") from error

# Version of the stored format, the same for all data sets.
FORMAT_VERSION = "1.0.0"

Builder = TypeVar("Builder", bound=tfds.core.DatasetBuilder)


class PreparationError(RuntimeError):
    """A data set is missing, damaged or could not be prepared; the message gives the remedy."""


def data_path(name: str, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Folder of a data set: DATA_DIR/BUILDER/CONFIG/VERSION. A name without "/CONFIG" means "/default".

    Raises:
        PreparationError: If the name has another form, or the folder cannot hold prepared data.
    """
    if "://" in os.fspath(data_dir):
        raise PreparationError(
            f"data_dir {os.fspath(data_dir)!r} is a URL. Prepared data must be in a file system: copy it to a disk, or "
            "mount the bucket, and give that folder."
        )
    folder = pathlib.Path(data_dir).expanduser()
    if str(folder) != str(folder).encode(errors="replace").decode():  # array_record cannot open it
        raise PreparationError(f"data_dir {str(folder)!a} is not valid UTF-8. Rename that folder, or link to it.")
    builder, _, config = name.partition("/")
    config = config or "default"
    if not all(re.fullmatch(r"\w[\w.-]*", part) for part in (builder, config)):
        raise PreparationError(
            f"Data set name {name!r}: expected 'builder' or 'builder/config', of letters, digits and _-."
        )
    return folder / builder / config / FORMAT_VERSION


def label_map_hash(class_names: Sequence[str]) -> str:
    """SHA-256 of the class names, one per line, in the order of their ids."""
    return hashlib.sha256("\n".join(class_names).encode()).hexdigest()


def unfinished_folder(path: pathlib.Path) -> pathlib.Path:
    """Folder of finished shards while the data set in `path` is incomplete."""
    return path.parent / f"unfinished.{FORMAT_VERSION}"


def unpacked_folder(path: pathlib.Path) -> pathlib.Path:
    """Folder for unpacked archives while the data set in `path` is prepared."""
    return path.parent / f"unpacked.{FORMAT_VERSION}"


def open_prepared(path: pathlib.Path) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set. Only its folder is needed.

    Args:
        path: from `data_path`.

    Raises:
        FileNotFoundError: If there is no such folder.
        PreparationError: If the data set is incomplete.
    """
    if not path.is_dir():
        raise FileNotFoundError(path)
    _hide_gpus()
    try:
        builder = tfds.builder_from_directory(path)
        _check_files(path, builder.info.metadata)
        _check_class_names(builder.info)
    except Exception as error:
        raise PreparationError(
            f"The data set in {path} is incomplete or damaged ({type(error).__name__}: {error}). "
            "Prepare it again with --overwrite, or remove that folder."
        ) from error
    return builder


def prepare(builder: Callable[[], Builder], path: pathlib.Path, *, overwrite: bool = False) -> Builder | None:
    """Prepares a data set in `path`, unless it exists.

    An interrupted run leaves no partial data set there; the next run resumes its work.

    Args:
        builder: makes the builder; called after an old data set was renamed, because the builder would read it.
        path: from `data_path`.
        overwrite: replace an existing data set.

    Returns:
        The builder, or None if the data set was already prepared.

    Raises:
        PreparationError: If the data set cannot be prepared, or the existing one is incomplete.
    """
    _hide_gpus()
    old = path.with_name(f"old.{path.name}")
    with _locked(path.parent), quiet():
        if old.exists() and not path.exists():  # a process that was overwriting it was killed
            old.rename(path)
        if path.exists() and not overwrite:
            open_prepared(path)
            _remove_leftovers(path)
            return None
        if path.exists():
            path.rename(old)
        try:
            made = builder()
            made.download_and_prepare(file_format="array_record")
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
        _remove_leftovers(path)
        return made


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses TFDS's notes and nested progress bars, which would bury ours."""
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


def _hide_gpus() -> None:
    """Hides GPUs from TensorFlow, which only reads data here. It would take their memory from JAX."""
    tf.config.set_visible_devices([], "GPU")


def _check_files(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    if "files" not in metadata:
        raise ValueError("metadata.json is missing, or does not list the files")
    for name, size in metadata["files"].items():
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        if (found := (path / name).stat().st_size) != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")


def _check_class_names(info: tfds.core.DatasetInfo) -> None:
    label = info.features["label"]
    if len(label.names) != label.num_classes:
        raise ValueError(f"label.labels.txt holds {len(label.names)} class names instead of {label.num_classes}")
    if label_map_hash(label.names) != info.metadata["provenance"]["label_map_sha256"]:
        raise ValueError("label.labels.txt is missing, or holds other class names than those of the preparation")


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder for one process at a time. The system frees the lock of a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tqdm.write(f"Waiting for another process that is preparing {folder}.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(path: pathlib.Path) -> None:
    """Removes temporary folders from the preparation of the data set in `path`."""
    leftovers = (*path.parent.glob("incomplete.*"), *path.parent.glob("old.*"))
    for folder in (*leftovers, unfinished_folder(path), unpacked_folder(path)):
        if folder.exists():
            shutil.rmtree(folder)
