"""The log of a run: TensorBoard, metrics.jsonl, and lines to read.

clu and, behind it, TensorFlow are imported here alone.
"""

import json
import logging as std_logging
from pathlib import Path

import jax
from absl import logging
from clu import metric_writers, parameter_overview, periodic_actions

from rsa_jax.training.state import PyTree


class NonFiniteLossError(RuntimeError):
    """A loss is infinite or not a number."""


def setup_logging() -> None:
    """Short lines on standard error: what the run and clu say, and the warnings of all others."""
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(
        lambda record: record.levelno > std_logging.INFO or any(name in record.pathname for name in ("rsa_jax", "clu"))
    )


class RunLog:
    """Writes metrics of steps; only the first process does.

    Args:
        workdir: gets TensorBoard events and metrics.jsonl.
        first_step: where the run goes on. Lines of later steps, of a run that was killed, are taken out.
        num_steps: of the whole run.
        every_steps: between progress reports.
    """

    def __init__(self, workdir: Path, *, first_step: int, num_steps: int, every_steps: int):
        self._main = jax.process_index() == 0
        self._jsonl = workdir / "metrics.jsonl"
        self._writer = metric_writers.create_default_writer(
            str(workdir / "tensorboard"), just_logging=not self._main, asynchronous=True
        )
        self._progress = periodic_actions.ReportProgress(
            num_train_steps=num_steps, every_steps=every_steps, every_secs=None, writer=None
        )
        if self._main and self._jsonl.exists():
            lines = [line for line in self._jsonl.read_text().splitlines() if _step(line) <= first_step]
            self._jsonl.write_text("".join(line + "\n" for line in lines))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """One step's metrics, by name."""
        self._writer.write_scalars(step, metrics)
        if self._main:
            with self._jsonl.open("a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")

    def progress(self, step: int) -> None:
        """Called after every step; reports the time left now and then."""
        self._progress(step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def log_parameters(params: PyTree) -> None:
    """A table of all parameters."""
    logging.info("Parameters:\n%s", parameter_overview.get_parameter_overview(params, include_stats=False))


def _step(line: str) -> int:
    """Of a line of metrics.jsonl; one that was cut off while it was written belongs to no step."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return 1 << 62
