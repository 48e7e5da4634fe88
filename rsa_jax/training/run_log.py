"""The log of a run: TensorBoard, metrics.jsonl and text.

Only this module imports clu and, through it, TensorFlow.
"""

import json
import tempfile
import time

import jax
import numpy as np
from absl import logging
from etils import epath

from rsa_jax.extras import missing
from rsa_jax.files import complete, is_remote, without_nan
from rsa_jax.training.state import PyTree
from rsa_jax.training.step import Metrics

try:
    from clu import metric_writers, parameter_overview, periodic_actions
except ModuleNotFoundError as error:
    raise missing(error, "train") from error


class NonFiniteLossError(RuntimeError):
    """A loss, or the parameters after the step, are infinite or NaN."""


class RunLog:
    """Writes the metrics of steps. Only the first process writes.

    In a bucket, files cannot be appended to. The log is then kept in a temporary folder, and copied to the workdir with
    every checkpoint: lines after the last checkpoint would be removed on resuming anyway.

    Args:
        workdir: folder for TensorBoard events and metrics.jsonl.
        first_step: step from which the run resumes. Lines of later steps, left by a killed run, are removed.
        num_steps: number of steps of the whole run.
        every_steps: steps between progress reports.
    """

    def __init__(self, workdir: epath.Path, *, first_step: int, num_steps: int, every_steps: int):
        self._main = jax.process_index() == 0
        self._workdir = self._folder = workdir
        if is_remote(workdir):
            self._temporary = tempfile.TemporaryDirectory()
            self._folder = epath.Path(self._temporary.name)
        self._jsonl = self._folder / "metrics.jsonl"
        self._writer = metric_writers.create_default_writer(
            str(self._folder / "tensorboard"), just_logging=not self._main, asynchronous=True
        )
        self._progress = periodic_actions.ReportProgress(
            num_train_steps=num_steps, every_steps=every_steps, every_secs=None, writer=None
        )
        if self._main and (workdir / "metrics.jsonl").exists():
            text = (workdir / "metrics.jsonl").read_text()
            lines = [line for line in text.splitlines() if _step(line) <= first_step]
            with complete(self._jsonl) as partial:
                partial.write_text("".join(line + "\n" for line in lines))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes the metrics of one step, by name."""
        self._writer.write_scalars(step, metrics)
        if self._main:
            with self._jsonl.open("a") as file:
                file.write(json.dumps(without_nan({"step": step, **metrics})) + "\n")

    def progress(self, step: int) -> None:
        """Reports the remaining time at intervals. Call it after every step."""
        self._progress(step)

    def flush(self) -> None:
        """Copies the log to a workdir in a bucket. On a file system, every line is there once it is written."""
        self._writer.flush()
        self._copy()

    def _copy(self) -> None:
        if self._main and self._folder != self._workdir:
            for file in ("metrics.jsonl", *(f"tensorboard/{path.name}" for path in self._folder.glob("tensorboard/*"))):
                if (self._folder / file).exists():
                    (self._workdir / file).parent.mkdir(parents=True, exist_ok=True)
                    (self._workdir / file).write_bytes((self._folder / file).read_bytes())

    def close(self) -> None:
        """Flushes and closes the writer."""
        self._writer.close()
        self._copy()


class PendingMetrics:
    """Metrics of steps that are not read yet: reading them immediately would stall the devices.

    Args:
        batch_size: clips per step.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps: list[tuple[int, Metrics]] = []
        self.restart()

    def restart(self) -> None:
        """Restarts the clocks for clips per second and waiting time."""
        self._start, self._waited, self._timed = time.perf_counter(), 0.0, 0

    def waiting(self) -> "PendingMetrics":
        """Context manager that times the loop's wait for data."""
        return self

    def __enter__(self) -> None:
        self._waiting_since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._waited += time.perf_counter() - self._waiting_since

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds the metrics of a step, still on the devices."""
        self._steps.append((step, metrics))
        self._timed += 1

    def check(self) -> None:
        """Waits for the pending steps.

        Raises:
            NonFiniteLossError: loss or parameters after a step are infinite or NaN; the message names the steps.
        """
        values = jax.device_get([(metrics["loss"], metrics["parameter_norm"]) for _, metrics in self._steps])
        bad = [step for (step, _), pair in zip(self._steps, values, strict=True) if not np.all(np.isfinite(pair))]
        if bad:
            raise NonFiniteLossError(f"loss or parameters are not finite at steps {bad}; nothing was saved since")

    def collect(self) -> dict[str, float]:
        """Means of loss and accuracy since the last call, the other metrics of the last step, and speed."""
        self.check()
        steps = jax.device_get([metrics for _, metrics in self._steps])
        seconds = time.perf_counter() - self._start
        result = {name: float(value) for name, value in steps[-1].items()}
        for name in ("loss", "accuracy"):
            result[name] = float(np.mean([metrics[name] for metrics in steps]))
        result["clips_per_second"] = self._timed * self._batch_size / seconds
        result["data_wait"] = self._waited / seconds
        self._steps.clear()
        self.restart()
        return result


def log_parameters(params: PyTree) -> None:
    """Logs a table of all parameters."""
    logging.info("Parameters:\n%s", parameter_overview.get_parameter_overview(params, include_stats=False))


def _step(line: str) -> int:
    """Step of a line of metrics.jsonl. A line cut off while being written counts as later than any step."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return 1 << 62
