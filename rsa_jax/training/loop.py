"""A run from its configuration to its last checkpoint, and the evaluation of one."""

import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from rsa_jax.data import pipeline
from rsa_jax.training.checkpoints import (
    Checkpoints,
    check_same,
    claim_workdir,
    read_config,
    write_json,
)
from rsa_jax.training.evaluation import Counts, evaluate, make_eval_step
from rsa_jax.training.metrics import NonFiniteLossError, RunLog, log_parameters
from rsa_jax.training.optimizer import make_optimizer, make_schedule
from rsa_jax.training.state import (
    PyTree,
    TrainState,
    create_state,
    define_model,
    make_mesh,
    replicated,
    split_batch,
    to_devices,
)
from rsa_jax.training.step import Batch, Metrics, make_train_step


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration made into what runs: data, devices, and compiled programs.

    Attributes:
        config: with `model.num_classes` set.
        info: of the data set.
        mesh: of all devices.
        steps_per_epoch: of the training split.
        init: the state before the first step.
        train_step: of `make_train_step`, compiled; the old state's memory is given to the new one.
        eval_step: of `make_eval_step`, compiled.
    """

    config: ConfigDict
    info: pipeline.DatasetInfo
    mesh: jax.sharding.Mesh
    steps_per_epoch: int
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    eval_step: Callable[[PyTree, PyTree, Batch], Counts]

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def abstract_state(self) -> TrainState:
        """Shapes, types and shardings of the state on this run's devices."""
        sharding = replicated(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            jax.eval_shape(self.init),
        )

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Training batches from a step to the end of the run."""
        return pipeline.train_batches(
            self.config.data,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            num_steps=self.num_steps,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Metrics of the evaluation split."""
        batches = pipeline.eval_batches(
            self.config.data,
            split=self.config.data.eval_split,
            batch_size=self.config.eval.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        on_devices = (to_devices(self.mesh, batch) for batch in batches)
        return evaluate(self.eval_step, state.params, state.batch_stats, on_devices)


def make_run(config: ConfigDict) -> Run:
    """Builds a run; nothing is computed yet.

    Raises:
        ValueError: a field of the configuration does not fit the data set or the devices.
    """
    info = _load_info(config.data)
    config = with_classes(config, info)
    _check_batches(config)
    steps_per_epoch = pipeline.steps_per_epoch(info, config.data.train_split, config.batch_size)
    schedule = make_schedule(config.optimizer, epochs=config.epochs, steps_per_epoch=steps_per_epoch)
    optimizer = make_optimizer(config.optimizer, schedule)
    model = define_model(config.model)
    mesh = make_mesh()
    whole, parts = replicated(mesh), split_batch(mesh)
    step = make_train_step(model, optimizer, schedule, config, info.directional)
    eval_step = make_eval_step(model, config, config.model.num_classes)
    return Run(
        config,
        info,
        mesh,
        steps_per_epoch,
        init=jax.jit(functools.partial(create_state, config, optimizer), out_shardings=whole),
        train_step=jax.jit(step, in_shardings=(whole, parts), out_shardings=whole, donate_argnums=0),
        eval_step=jax.jit(eval_step, in_shardings=(whole, whole, parts), out_shardings=whole),
    )


def train(config: ConfigDict, workdir: Path) -> None:
    """Trains to the end of the run, from the latest checkpoint of the workdir if there is one.

    SIGTERM saves a checkpoint and returns.

    Raises:
        ValueError: the configuration is wrong, or the workdir belongs to another one.
        NonFiniteLossError: a loss is infinite or not a number. Nothing is saved after it.
    """
    run = make_run(config)
    claim_workdir(workdir, run.config, dataclasses.asdict(run.info))
    checkpoints = Checkpoints(workdir, run.config.checkpoint)
    try:
        state = _restore_or_init(run, checkpoints)
        if int(state.step) == run.num_steps:
            logging.info("All %d steps are done.", run.num_steps)
            return
        _train_steps(run, state, checkpoints, workdir)
    finally:
        checkpoints.close()


def evaluate_checkpoint(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates `eval.checkpoint` of the workdir, and writes eval.json there.

    Raises:
        ValueError: the workdir holds no such checkpoint, or its network is another one than `config.model`.
    """
    saved = read_config(workdir)
    check_same(saved, with_classes(config, _load_info(config.data)), workdir, section="model.")
    with config.unlocked():
        config.optimizer = saved.optimizer  # the state's structure depends on it
    run = make_run(config)
    checkpoints = Checkpoints(workdir, saved.checkpoint)
    step = checkpoints.find(config.eval.checkpoint)
    logging.info("Evaluating step %d on %s, prepared so: %s", step, run.info.name, run.info.provenance)
    metrics = run.evaluate(checkpoints.restore(run.abstract_state(), step))
    checkpoints.close()
    result = {**metrics, "step": step, "views": 1, "dataset": run.info.name, "split": config.data.eval_split}
    if jax.process_index() == 0:
        write_json(workdir / "eval.json", result)
    logging.info("%s", _readable(result))
    return result


def with_classes(config: ConfigDict, info: pipeline.DatasetInfo) -> ConfigDict:
    """The configuration with `model.num_classes` set to the data set's where it was None.

    Raises:
        ValueError: the data set has more classes than the network.
    """
    config, classes = config.copy_and_resolve_references(), len(info.class_names)
    if config.model.num_classes is None:
        config.model.num_classes = classes
    if config.model.num_classes < classes:
        raise ValueError(f"model.num_classes: {info.name} has {classes} classes, got {config.model.num_classes}")
    return config


def _train_steps(run: Run, state: TrainState, checkpoints: Checkpoints, workdir: Path) -> None:
    config, step = run.config, int(state.step)
    log = RunLog(workdir, first_step=step, num_steps=run.num_steps, every_steps=config.log.every_steps)
    pending = PendingMetrics(config.batch_size)
    batches = run.batches(step)
    with StopSignal() as stop:
        while step < run.num_steps:
            with pending.waiting():
                batch = to_devices(run.mesh, next(batches))
            state, metrics = run.train_step(state, batch)
            step += 1
            pending.add(step, metrics)
            stopping = stop.requested(step)
            if step % config.log.every_steps == 0 or step == run.num_steps:
                log.write(step, pending.collect())
            log.progress(step)
            if _evaluates(run, step):
                pending.check()
                validation = run.evaluate(state)
                log.write(step, {f"validation_{name}": value for name, value in validation.items()})
                logging.info("Step %d, validation: %s", step, _readable(validation))
                checkpoints.save(state, validation)
                pending.restart()
            elif step % config.checkpoint.every_steps == 0 or stopping:
                pending.check()
                checkpoints.save(state)
            if stopping:
                logging.info("Stopped by a signal after step %d, which is saved.", step)
                break
    log.close()


class PendingMetrics:
    """Metrics of steps that nobody has looked at yet: reading them at once would stop the devices.

    Args:
        batch_size: clips in a step.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps: list[tuple[int, Metrics]] = []
        self.restart()

    def restart(self) -> None:
        """Starts the clock of clips per second and of the time spent waiting anew."""
        self._start, self._waited, self._timed = time.perf_counter(), 0.0, 0

    def waiting(self) -> "PendingMetrics":
        """Context in which the loop waits for data."""
        return self

    def __enter__(self) -> None:
        self._waiting_since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._waited += time.perf_counter() - self._waiting_since

    def add(self, step: int, metrics: Metrics) -> None:
        """Metrics of a step, still on the devices."""
        self._steps.append((step, metrics))
        self._timed += 1

    def check(self) -> None:
        """Waits for the steps.

        Raises:
            NonFiniteLossError: naming the steps whose loss is infinite or not a number.
        """
        losses = jax.device_get([metrics["loss"] for _, metrics in self._steps])
        bad = [step for (step, _), loss in zip(self._steps, losses, strict=True) if not np.isfinite(loss)]
        if bad:
            raise NonFiniteLossError(f"the loss is not finite at steps {bad}; nothing was saved after them")

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


class StopSignal:
    """Notes SIGTERM, so that the loop can save and stop between two steps."""

    def __enter__(self) -> "StopSignal":
        self._received = False
        self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def requested(self, step: int) -> bool:
        """Whether to stop after this step. All hosts agree on the step, whichever of them got the signal."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self._received = True


def _restore_or_init(run: Run, checkpoints: Checkpoints) -> TrainState:
    step = checkpoints.latest()
    if step is None:
        state = run.init()
        log_parameters(state.params)
        return state
    logging.info("Going on from step %d of %d.", step, run.num_steps)
    return checkpoints.restore(run.abstract_state(), step)


def _evaluates(run: Run, step: int) -> bool:
    """At the end of every `eval.every_epochs`-th epoch, and at the end."""
    epoch, rest = divmod(step, run.steps_per_epoch)
    return rest == 0 and (epoch % run.config.eval.every_epochs == 0 or step == run.num_steps)


def _load_info(data: ConfigDict) -> pipeline.DatasetInfo:
    """One process first: it may have to make the data set, on a disk that others share."""
    if jax.process_count() > 1:
        if jax.process_index() == 0:
            pipeline.load_info(data)
        multihost_utils.sync_global_devices("data set")
    return pipeline.load_info(data)


def _check_batches(config: ConfigDict) -> None:
    parts = config.optimizer.accumulation * jax.device_count()
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size: expected a multiple of {parts} (devices x optimizer.accumulation), got {config.batch_size}"
        )
    if config.eval.batch_size % jax.device_count():
        raise ValueError(
            f"eval.batch_size: expected a multiple of the {jax.device_count()} devices, got {config.eval.batch_size}"
        )


def _readable(metrics: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics.items()
    )
