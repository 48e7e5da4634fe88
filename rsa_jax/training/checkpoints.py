"""Checkpoints of a run."""

from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from rsa_jax.files import is_remote
from rsa_jax.training.state import TrainState
from rsa_jax.training.workdir import WorkdirError, workdir_path


class Checkpoints:
    """Checkpoints of a workdir. The latest ones and the best by validation top-1 are kept.

    Saves are asynchronous; a checkpoint appears under its name only when it is complete.
    """

    def __init__(self, workdir: epath.PathLike, config: ConfigDict):
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(config.keep_latest),
                policies.BestN(get_metric_fn=_top1, n=config.keep_best, keep_checkpoints_without_metrics=False),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, best_fn=_top1, enable_async_checkpointing=True)
        path = workdir_path(workdir)
        self.directory = (path if is_remote(path) else path.absolute()) / "checkpoints"
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Starts saving a state under its step, with the validation metrics if it was evaluated."""
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(_fields(state)), metrics=metrics)

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
        return state._replace(**self._manager.restore(step, args=ocp.args.StandardRestore(_fields(state))))

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


def _fields(state: TrainState) -> dict[str, Any]:
    """Fields of the state by name. Those of an option that is off are None, and not part of a checkpoint."""
    return {name: value for name, value in state._asdict().items() if value is not None}


def _top1(metrics: dict[str, float]) -> float:
    return metrics["top1"]
