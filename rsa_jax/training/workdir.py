"""The record of a run in its workdir: config.json, and dataset.json of the data that it was trained on."""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from rsa_jax.files import is_remote, write_json
from rsa_jax.settings import default_config

# Fields that may change when a run resumes, since its results do not depend on them.
FREE_FIELDS = (
    "eval.",
    "log.",
    "checkpoint.",
    "data.data_dir",
    "data.prefetch",
    "model.remat",
    "model.implementation",
    "optimizer.recipe_batch_size",
    "optimizer.recipe_learning_rate",
)

# Former names of fields, and their names now; None for fields that results did not depend on.
RENAMED_FIELDS = {
    "data.directional": "data.flip_policy",
    "model.positions": "model.transform_blocks",
    "model.rsa.form": None,
}


class WorkdirError(ValueError):
    """A workdir that does not fit the request."""


def workdir_path(path: epath.PathLike) -> epath.Path:
    """The path of a workdir, checked: a folder, or a URL of a bucket (gs://, s3://).

    Raises:
        WorkdirError: no checkpoint can be written there and read again.
    """
    text = os.fspath(path)
    if not re.fullmatch(r"(gs|s3)://[^/]+/.+|(?!\w+:/).+", text, re.DOTALL):
        raise WorkdirError(f"workdir: expected a folder, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER, got {text!r}")
    path = epath.Path(text) if is_remote(text) else epath.Path(text).expanduser()
    whole = text if is_remote(text) else os.path.abspath(path)
    unusable = sorted(set(whole) & set("*?[\\"))  # Orbax merges its files by a glob pattern with the whole path
    if unusable or not whole.isprintable():
        what = f"without {' '.join(unusable)}" if unusable else "of printable characters"
        raise WorkdirError(f"workdir: expected a path {what}: checkpoints could not be read from it, got {whole!r}")
    if is_remote(text):
        return path
    existing = _existing(path)
    if not existing.is_dir():
        raise WorkdirError(f"workdir: expected a folder, got a file: {existing}")
    return path


def check_writable(workdir: epath.Path) -> None:
    """Checks before hours of computing that results can be written.

    Raises:
        WorkdirError: the workdir, or the folder that it would be created in, cannot be written to.
    """
    existing = _existing(workdir)
    if not is_remote(workdir) and not os.access(existing, os.W_OK | os.X_OK):
        raise WorkdirError(f"workdir: {existing} cannot be written to")


def _existing(path: epath.Path) -> epath.Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if is_remote(place) or place.exists() or place == place.parent)


@contextlib.contextmanager
def locked(workdir: epath.Path) -> Iterator[None]:
    """Creates the workdir, and holds it for one training at a time.

    The first process of a run holds the lock. The system frees the lock of a killed process. A bucket has no locks.

    Raises:
        WorkdirError: another process trains in the workdir.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if is_remote(workdir) or jax.process_index() > 0:
        yield
        return
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirError(f"{workdir}: another process is training in this workdir") from error
        yield


def check_workdir(workdir: epath.Path, config: ConfigDict, dataset: dict[str, Any]) -> None:
    """Checks that a workdir is new or belongs to the same run and data.

    Args:
        workdir: workdir of the run.
        config: run configuration, with `model.num_classes` set.
        dataset: name, class names, flip pairs and provenance of the data set.

    Raises:
        WorkdirError: the workdir belongs to another configuration; the message names the fields that differ.
    """
    if not (workdir / "config.json").exists():
        if (workdir / "checkpoints").exists() and any((workdir / "checkpoints").iterdir()):
            raise WorkdirError(f"{workdir} holds checkpoints, but config.json is missing: it is not known of which run")
    else:
        check_same(read_config(workdir), config, workdir)
        check_dataset(workdir, dataset, ("class_names", "flip_pairs", "num_examples"))


def claim_workdir(workdir: epath.Path, config: ConfigDict, dataset: dict[str, Any]) -> None:
    """Writes config.json and dataset.json into a new workdir, or fills unknown fields of dataset.json in an old one."""
    if jax.process_index() > 0:
        return
    if (workdir / "config.json").exists():
        known = {field: value for field, value in read_dataset(workdir).items() if value is not None}
        write_json(workdir / "dataset.json", dataset | known)
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "dataset.json", dataset)
        write_json(workdir / "config.json", config.to_dict())


def learn_class_names(workdir: epath.Path, data_name: str, class_names: Sequence[str]) -> None:
    """Writes class names into a workdir that has none, such as one of released weights.

    Args:
        workdir: workdir of a run.
        data_name: data set that the network was evaluated on. Class names are written only if it is the data set of
            the workdir's configuration and has as many classes as the network.
        class_names: class names of that data set.
    """
    dataset, config = read_dataset(workdir), read_config(workdir)
    if dataset["class_names"] is not None:
        return
    if (data_name, len(class_names)) == (config.data.name, config.model.num_classes):
        logging.info("Class names added to %s from the data set %s.", workdir, data_name)
        write_json(workdir / "dataset.json", dataset | {"class_names": list(class_names)})
    else:
        logging.info(
            "No class names added to %s: expected the %d classes of %s, evaluated on the %d classes of %s.",
            workdir,
            config.model.num_classes,
            config.data.name,
            len(class_names),
            data_name,
        )


def check_same(saved: ConfigDict, config: ConfigDict, workdir: epath.Path, section: str = "") -> None:
    """Compares two configurations, or one section of them, in all fields but `FREE_FIELDS`.

    Raises:
        WorkdirError: they differ; the message gives both values of every differing field.
    """
    old, new = _flatten(saved.to_dict()), _flatten(config.to_dict())
    missing = "(no such field)"
    differing = [
        f"  {field}: saved {old.get(field, missing)}, current {new.get(field, missing)}"
        for field in sorted(old.keys() | new.keys())
        if field.startswith(section) and not field.startswith(FREE_FIELDS)
        if old.get(field) != new.get(field)
    ]
    if differing:
        raise WorkdirError(
            f"{workdir} belongs to another configuration:\n" + "\n".join(differing) + "\n"
            "Use another --workdir, or the configuration of this one."
        )


def check_dataset(workdir: epath.Path, dataset: dict[str, Any], fields: Sequence[str]) -> None:
    """Compares the data set recorded in the workdir with the current one. Unknown fields (None) match anything.

    Raises:
        WorkdirError: they differ in one of `fields`.
    """
    saved = read_dataset(workdir)
    for field in fields:
        here = json.loads(json.dumps(dataset[field]))
        if saved[field] is not None and saved[field] != here:
            raise WorkdirError(
                f"{workdir} was created with different data (dataset.json): {field} was {saved[field]}, is now {here}"
            )


def read_config(workdir: epath.Path) -> ConfigDict:
    """The configuration of the run in a workdir, with the fields of this version.

    A field that the run did not know has its default: a new field's default is the behaviour before it.

    Raises:
        WorkdirError: the workdir holds no run.
    """
    content = _read_json(workdir / "config.json")
    for former, name in RENAMED_FIELDS.items():
        value = _pop(content, former)
        if value is not None and name is not None:
            _set(content, name, value)
    return ConfigDict(_filled(content, default_config().to_dict()))


def read_dataset(workdir: epath.Path) -> dict[str, Any]:
    """The data set recorded in a workdir: `class_names` and more.

    Raises:
        WorkdirError: the workdir holds no run.
    """
    content = _read_json(workdir / "dataset.json")
    if "directional" in content:  # the name in version 0.1
        content["flip_pairs"] = content.pop("directional")
    return content


def _pop(content: dict[str, Any], name: str) -> Any:
    """Removes the field of a dotted name. Returns its value, or None if there is no such field."""
    *sections, field = name.split(".")
    for section in sections:
        content = content.get(section, {})
    return content.pop(field, None)


def _set(content: dict[str, Any], name: str, value: Any) -> None:
    *sections, field = name.split(".")
    for section in sections:
        content = content.setdefault(section, {})
    content[field] = value


def _filled(content: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The content, with the defaults of fields that are missing or None."""
    filled = dict(content)
    for name, default in defaults.items():
        if isinstance(default, dict):
            filled[name] = _filled(filled.get(name) or {}, default)
        elif filled.get(name) is None:
            filled[name] = default
    return filled


def _read_json(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        raise WorkdirError(f"{path.parent} holds no run: {path.name} is missing")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise WorkdirError(f"{path} cannot be read: {error}") from error
    expected = {"config.json": "model", "dataset.json": "class_names"}[path.name]
    if not isinstance(content, dict) or expected not in content:
        raise WorkdirError(f"{path} is not the record of a run: expected an object with {expected!r}")
    return content


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name. Tuples become lists, as in a JSON file."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.loads(json.dumps(value))
    return flat
