"""Checkpoints of a run, and the configuration and data set recorded in its workdir."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from rsa_jax.files import write_json
from rsa_jax.training.state import TrainState

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

# Values of fields that a workdir's configuration lacks: the behaviour of runs before these fields existed.
EARLIER_VALUES = {
    "init_from": "none",
    "matmul_precision": "default",
    "data.sampling": "whole",
    "optimizer.restart_step": False,
    "model.self_attention.softmax": True,
    "model.implementation": None,
}

# Removed fields that earlier workdirs still have. Results did not depend on them.
FORMER_FIELDS = ("model.rsa.form",)


class WorkdirError(ValueError):
    """A workdir that does not fit the request."""


class Checkpoints:
    """Checkpoints of a workdir. The latest ones and the best by validation top-1 are kept.

    Saves are asynchronous; a checkpoint appears under its name only when it is complete.
    """

    def __init__(self, workdir: str | Path, config: ConfigDict):
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(config.keep_latest),
                policies.BestN(get_metric_fn=_top1, n=config.keep_best, keep_checkpoints_without_metrics=False),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, best_fn=_top1, enable_async_checkpointing=True)
        self.directory = Path(workdir).expanduser().absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Starts saving a state under its step, with the validation metrics if it was evaluated."""
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state._asdict()), metrics=metrics)

    def restore(self, state: TrainState, step: int) -> TrainState:
        """The state saved at a step.

        Args:
            state: shapes, dtypes and shardings to restore to, as `jax.ShapeDtypeStruct`. The number of devices may
                differ from that of the save.
            step: step of the checkpoint.

        Raises:
            WorkdirError: there is no checkpoint of that step.
        """
        if step not in self._manager.all_steps():
            raise WorkdirError(f"{self.directory}: no checkpoint for step {step}; available: {self.steps()}")
        return TrainState(**self._manager.restore(step, args=ocp.args.StandardRestore(state._asdict())))

    def steps(self) -> list[int]:
        """Steps that have a checkpoint."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The latest step, or None if there is no checkpoint."""
        return self._manager.latest_step()

    def find(self, name: str) -> int:
        """The step named by "best", "latest" or a number.

        Raises:
            WorkdirError: there is no checkpoint yet, or the name is invalid.
        """
        if not self.steps():
            raise WorkdirError(f"{self.directory}: holds no checkpoint; train first")
        if name == "best":
            best = self._manager.best_step()
            return self.steps()[-1] if best is None else best
        if name == "latest":
            return self.steps()[-1]
        if name.isdecimal():
            return int(name)
        raise WorkdirError(f"checkpoint: expected 'best', 'latest' or a step, got {name!r}")

    def close(self) -> None:
        """Waits until all saves are complete."""
        self._manager.wait_until_finished()
        self._manager.close()


def _top1(metrics: dict[str, float]) -> float:
    return metrics["top1"]


def check_workdir(workdir: Path, config: ConfigDict, dataset: dict[str, Any]) -> None:
    """Checks that a workdir is new or belongs to the same run and data.

    Args:
        workdir: workdir of the run.
        config: run configuration, with `model.num_classes` set.
        dataset: name, class names, flip pairs and provenance of the data set.

    Raises:
        WorkdirError: the workdir belongs to another configuration; the message names the fields that differ.
    """
    if (workdir / "config.json").exists():
        check_same(read_config(workdir), config, workdir)
        check_dataset(workdir, dataset, ("class_names", "flip_pairs", "num_examples"))


def claim_workdir(workdir: Path, config: ConfigDict, dataset: dict[str, Any]) -> None:
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


def learn_class_names(workdir: Path, data_name: str, class_names: Sequence[str]) -> None:
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


def check_same(saved: ConfigDict, config: ConfigDict, workdir: Path, section: str = "") -> None:
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


def check_dataset(workdir: Path, dataset: dict[str, Any], fields: Sequence[str]) -> None:
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


def read_config(workdir: Path) -> ConfigDict:
    """The configuration of the run in a workdir. Fields newer than the run are added, former ones removed.

    Raises:
        WorkdirError: the workdir holds no run.
    """
    content = _read_json(workdir / "config.json")

    def place(field: str) -> tuple[dict[str, Any], str]:
        *sections, name = field.split(".")
        return functools.reduce(lambda fields, key: fields.setdefault(key, {}), sections, content), name

    for field, value in EARLIER_VALUES.items():
        section, name = place(field)
        if section.get(name) is None:
            section[name] = value
    for field in FORMER_FIELDS:
        section, name = place(field)
        section.pop(name, None)
    return ConfigDict(content)


def read_dataset(workdir: Path) -> dict[str, Any]:
    """The data set recorded in a workdir: `class_names` and more.

    Raises:
        WorkdirError: the workdir holds no run.
    """
    return _read_json(workdir / "dataset.json")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise WorkdirError(f"{path.parent} holds no run: {path.name} is missing")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise WorkdirError(f"{path} cannot be read: {error}") from error


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name. Tuples become lists, as in a JSON file."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.loads(json.dumps(value))
    return flat
