"""Training from a configuration to the last checkpoint, and evaluation of a checkpoint."""

import dataclasses
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from rsa_jax.evaluation.evaluator import Views
from rsa_jax.evaluation.report import write_report
from rsa_jax.evaluation.scores import save_scores
from rsa_jax.files import write_json
from rsa_jax.input_pipeline.pipeline import read_clips
from rsa_jax.precision import describe_precision
from rsa_jax.training.checkpoints import Checkpoints, check_workdir, claim_workdir, learn_class_names
from rsa_jax.training.models import require_initial_weights
from rsa_jax.training.optimizer import compare_rate
from rsa_jax.training.run import Run, make_run, restore_run
from rsa_jax.training.run_log import PendingMetrics, RunLog, log_parameters
from rsa_jax.training.state import TrainState, to_devices


def train(config: ConfigDict, workdir: Path) -> bool:
    """Trains to the end of the run, from the latest checkpoint of the workdir if there is one.

    On SIGTERM or Ctrl-C, saves a checkpoint and returns. With several processes, only SIGTERM does this.

    Returns:
        Whether the end was reached without a signal to stop.

    Raises:
        ValueError: the configuration is invalid, or the workdir belongs to another one.
        NonFiniteLossError: a loss is infinite or NaN. Nothing is saved after it.
    """
    if not (workdir / "config.json").exists():  # before preparing the data set, which may take a day
        require_initial_weights(config)
    run = make_run(config)
    run.check()
    dataset = dataclasses.asdict(run.info)
    check_workdir(workdir, run.config, dataset)
    checkpoints = Checkpoints(workdir, run.config.checkpoint)
    try:
        state = _restore_or_init(run, checkpoints)
        claim_workdir(workdir, run.config, dataset)  # not earlier: a failure up to here leaves it unclaimed
        if int(state.step) >= run.num_steps:
            logging.info("Training is already complete (%d steps).", run.num_steps)
            return True
        return _train_steps(run, state, checkpoints, workdir)
    finally:
        checkpoints.close()


def evaluate_checkpoint(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the checkpoint `eval.checkpoint` of the workdir on the views of `config.eval`.

    Writes scores.npz, eval.json and report.html. Adds the data set's class names to a workdir without any.

    Raises:
        ValueError: the workdir holds no such checkpoint, or its network differs from `config.model`.
    """
    run, state = restore_run(config, workdir, config.eval.checkpoint)
    step = int(state.step)
    logging.info(
        "Evaluating step %d on %s. Data preparation:\n%s", step, run.info.name, _readable(run.info.provenance, "\n")
    )
    logging.info("%s", describe_precision(config.model.dtype, config.matmul_precision))
    scores = run.score(state, Views.of(config))
    result = {**scores.metrics(), **scores.origin}
    if jax.process_index() == 0:
        learn_class_names(workdir, run.info.name, run.info.class_names)
        save_scores(workdir / "scores.npz", scores)
        write_json(workdir / "eval.json", result)
        write_report(
            workdir / "report.html",
            scores,
            provenance=run.info.provenance,
            config=run.config.to_dict(),
            metrics_path=workdir / "metrics.jsonl",
            read_clips=lambda index: read_clips(run.config.data, run.config.data.eval_split, index)["frames"],
        )
    logging.info("%s", _readable(result))
    return result


def _train_steps(run: Run, state: TrainState, checkpoints: Checkpoints, workdir: Path) -> bool:
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
                    validation = run.score(state, Views()).metrics()
                    log.write(step, {f"validation_{name}": value for name, value in validation.items()})
                    checkpoints.save(state, validation)
                    pending.restart()
                elif step % config.checkpoint.every_steps == 0 or stopping:
                    pending.check()
                    checkpoints.save(state)
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


def _readable(fields: dict[str, Any], separator: str = ", ") -> str:
    """Names and values as text. A long list, which may hold thousands of clips, is given by its length."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return f"{len(value)}" if isinstance(value, list) and len(value) > 2 else f"{value}"

    return separator.join(f"{name} {text(value)}" for name, value in fields.items())
