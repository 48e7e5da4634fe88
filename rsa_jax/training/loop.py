"""Training, from a configuration to the last checkpoint: the loop around `rsa_jax.training.step`."""

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from rsa_jax.evaluation.evaluator import Evaluator, make_evaluator
from rsa_jax.evaluation.views import Views
from rsa_jax.input_pipeline import pipeline
from rsa_jax.input_pipeline.dataset_info import DatasetInfo
from rsa_jax.precision import describe_precision
from rsa_jax.settings import check_config
from rsa_jax.training.checkpoints import Checkpoints
from rsa_jax.training.dataset import load_info, with_classes
from rsa_jax.training.initial_weights import load_initial_weights, require_initial_weights
from rsa_jax.training.mesh import make_mesh, replicated, to_devices
from rsa_jax.training.optimizer import compare_rate, make_optimizer, make_restart, make_schedule
from rsa_jax.training.run_log import PendingMetrics, RunLog, log_parameters
from rsa_jax.training.state import (
    ModelDefinition,
    TrainState,
    abstract_state,
    create_state,
    define_model,
    merge_model,
    split_model,
)
from rsa_jax.training.step import Batch, Metrics, abstract_batch, jit_train_step
from rsa_jax.training.workdir import check_workdir, check_writable, claim_workdir, locked, workdir_path


def train(config: ConfigDict, workdir: epath.PathLike) -> bool:
    """Trains to the end of the run, from the latest checkpoint of the workdir if there is one.

    On SIGTERM or Ctrl-C, saves a checkpoint and returns. With several processes, only SIGTERM does this.

    Returns:
        Whether the end was reached without a signal to stop.

    Raises:
        ValueError: the configuration is invalid, or the workdir belongs to another one.
        NonFiniteLossError: a loss is infinite or NaN. Nothing is saved after it.
    """
    workdir = workdir_path(workdir)
    check_writable(workdir)
    if not (workdir / "config.json").exists():  # before preparing the data set, which may take a day
        require_initial_weights(config)
    run = make_run(config)
    run.check()
    dataset = dataclasses.asdict(run.info)
    check_workdir(workdir, run.config, dataset)
    with locked(workdir), contextlib.closing(Checkpoints(workdir, run.config.checkpoint)) as checkpoints:
        state = _restore_or_init(run, checkpoints)
        claim_workdir(workdir, run.config, dataset)  # not earlier: a failure up to here leaves it unclaimed
        if int(state.step) >= run.num_steps:
            logging.info("Training is already complete (%d steps).", run.num_steps)
            return True
        return _train_steps(run, state, checkpoints, workdir)


@dataclasses.dataclass(frozen=True)
class Run:
    """The data, devices and compiled programs of a configuration.

    Attributes:
        config: run configuration, with `model.num_classes` set.
        info: description of the data set.
        model: definition of the model.
        mesh: mesh of all devices.
        steps_per_epoch: steps per epoch of the training split.
        init: creates the state before the first step.
        train_step: compiled `make_train_step`; donates the old state.
        restart: compiled `make_restart`; donates the old state, returns the new one and the norm of the update.
        evaluator: evaluates the network on the validation split.
    """

    config: ConfigDict
    info: DatasetInfo
    model: ModelDefinition
    mesh: jax.sharding.Mesh
    steps_per_epoch: int
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    restart: Callable[[TrainState], tuple[TrainState, jax.Array]]
    evaluator: Evaluator

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state on this run's devices."""
        return abstract_state(self.init, self.mesh)

    def initial_state(self) -> TrainState:
        """The state before the first step, with the weights of `config.init_from`.

        Raises:
            ValueError: `init_from` is neither a weights file nor a workdir, or does not fit the network.
        """
        state = self.init()
        model = merge_model(self.model.train, state.params, state.batch_stats)
        load_initial_weights(model, self.config, self.info.class_names)
        params, batch_stats = jax.device_put(split_model(model), replicated(self.mesh))
        return state._replace(params=params, batch_stats=batch_stats)

    def check(self) -> None:
        """Traces a training step, so that errors appear before anything is written.

        Raises:
            ValueError: a field of the configuration is invalid.
        """
        batch = self.config.batch_size
        parts = self.config.optimizer.accumulation * jax.device_count()
        if batch % parts:
            raise ValueError(
                f"batch_size: expected a multiple of {parts} (devices x optimizer.accumulation), got {batch}"
            )
        jax.eval_shape(self.train_step, self.abstract_state(), abstract_batch(self.config, self.info.frame_size))

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Training batches from `start_step` to the end of the run."""
        return pipeline.train_batches(
            self.config.data,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            num_steps=self.num_steps,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )


def make_run(config: ConfigDict) -> Run:
    """Builds a run. Nothing is computed yet.

    Raises:
        ValueError: a field of the configuration does not fit the data set or the devices.
    """
    check_config(config)  # before preparing the data set
    info = load_info(config.data, config.data.train_split, config.data.eval_split)
    config = with_classes(config, info)
    steps_per_epoch = pipeline.steps_per_epoch(info, config.data.train_split, config.batch_size)
    schedule = make_schedule(config.optimizer, epochs=config.epochs, steps_per_epoch=steps_per_epoch)
    optimizer = make_optimizer(config.optimizer, schedule)
    mesh = make_mesh()
    model = define_model(config.model, mesh.devices.flat[0])
    whole = replicated(mesh)
    apply_restart = make_restart(config.optimizer)

    def restart(state: TrainState) -> tuple[TrainState, jax.Array]:
        params, opt_state, norm = apply_restart(state.params, state.opt_state)
        return state._replace(params=params, opt_state=opt_state), norm

    return Run(
        config,
        info,
        model,
        mesh,
        steps_per_epoch,
        init=jax.jit(functools.partial(create_state, config, optimizer), out_shardings=whole),
        train_step=jit_train_step(model, optimizer, schedule, config, info.flip_pairs, mesh),
        restart=jax.jit(restart, in_shardings=(whole,), out_shardings=whole, donate_argnums=0),
        evaluator=make_evaluator(model, config, info, mesh),
    )


def _train_steps(run: Run, state: TrainState, checkpoints: Checkpoints, workdir: epath.Path) -> bool:
    config, step = run.config, int(state.step)
    logging.info("%s", describe_precision(config.model.dtype, config.matmul_precision))
    logging.info("%s", compare_rate(config.optimizer, config.batch_size))
    logging.info("Compiling the training step; the first one takes a while.")
    log = RunLog(workdir, first_step=step, num_steps=run.num_steps, every_steps=config.log.every_steps)
    pending = PendingMetrics(config.batch_size)
    batches = run.batches(step)
    try:
        with StopSignal() as stop:
            while step < run.num_steps:
                if _restarts(run, step):
                    state, norm = run.restart(state)
                    log.write(step + 1, {"restart_norm": float(norm)})
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
                    validation = run.evaluator.score(state, Views()).metrics()
                    log.write(step, {f"validation_{name}": value for name, value in validation.items()})
                    checkpoints.save(state, validation)
                    log.flush()
                    pending.restart()
                elif step % config.checkpoint.every_steps == 0 or stopping:
                    pending.check()
                    checkpoints.save(state)
                    log.flush()
                if stopping:
                    logging.info("Stopped by a signal; step %d is saved.", step)
                    break
    finally:
        log.close()
    return step >= run.num_steps and not stop.received


def _restore_or_init(run: Run, checkpoints: Checkpoints) -> TrainState:
    step = checkpoints.latest()
    if step is None:
        state = run.initial_state()
        log_parameters(state.params)
        return state
    origin = run.config.init_from
    logging.info("Resuming from step %d of %d. The run's initial weights: %s.", step, run.num_steps, origin)
    return checkpoints.restore(run.abstract_state(), step)


def _evaluates(run: Run, step: int) -> bool:
    """Whether to evaluate: after every `eval.every_epochs`-th epoch and at the end of the run."""
    epoch, rest = divmod(step, run.steps_per_epoch)
    return rest == 0 and (epoch % run.config.eval.every_epochs == 0 or step == run.num_steps)


def _restarts(run: Run, step: int) -> bool:
    """Whether to restart: before the first step of every epoch but the first, with `optimizer.restart_step`."""
    return run.config.optimizer.restart_step and step > 0 and step % run.steps_per_epoch == 0


class StopSignal:
    """Records SIGTERM and Ctrl-C, so that the loop can save and stop between steps. A second signal stops at once.

    Attributes:
        received: whether a signal was received; stays False with several processes.
    """

    def __enter__(self) -> "StopSignal":
        self.received = False
        if jax.process_count() == 1:  # with several processes, JAX has its own handler
            self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        if jax.process_count() == 1:
            self._restore()

    def requested(self, step: int) -> bool:
        """Whether to stop after this step. All hosts agree on the step, whichever of them received the signal."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.received

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
