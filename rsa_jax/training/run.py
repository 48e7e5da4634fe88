"""A run: the data, devices and compiled programs of a configuration."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from rsa_jax.evaluation.evaluator import CROP_PLACES, EvalStep, Views, evaluate
from rsa_jax.evaluation.scores import AVERAGES, Scores
from rsa_jax.input_pipeline import pipeline
from rsa_jax.input_pipeline.sampling import SAMPLINGS
from rsa_jax.precision import PRECISIONS
from rsa_jax.training.checkpoints import Checkpoints, check_dataset, check_same, read_config
from rsa_jax.training.models import load_initial_weights
from rsa_jax.training.optimizer import make_optimizer, make_restart, make_schedule
from rsa_jax.training.programs import abstract_batch, jit_eval_step, jit_train_step
from rsa_jax.training.state import (
    ModelDefinition,
    TrainState,
    abstract_state,
    create_state,
    define_model,
    make_mesh,
    merge_model,
    replicated,
    split_model,
)
from rsa_jax.training.step import Batch, Metrics


@dataclasses.dataclass(frozen=True)
class Run:
    """Data, devices and compiled programs of a configuration.

    Attributes:
        config: run configuration, with `model.num_classes` set.
        info: description of the data set.
        model: definition of the model.
        mesh: mesh of all devices.
        steps_per_epoch: steps per epoch of the training split.
        init: creates the state before the first step.
        train_step: compiled `make_train_step`; donates the old state.
        restart: compiled `make_restart`; donates the old state, returns the new one and the norm of the update.
        eval_step: compiled `make_eval_step`.
    """

    config: ConfigDict
    info: pipeline.DatasetInfo
    model: ModelDefinition
    mesh: jax.sharding.Mesh
    steps_per_epoch: int
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    restart: Callable[[TrainState], tuple[TrainState, jax.Array]]
    eval_step: EvalStep

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

    def eval_batches(self, num_clips: int = 1) -> Iterator[dict[str, np.ndarray]]:
        """Batches of the evaluation split, with the frames of `num_clips` clips of each video."""
        return pipeline.eval_batches(
            self.config.data,
            split=self.config.data.eval_split,
            batch_size=-(-self.config.eval.batch_size // jax.device_count()) * jax.device_count(),
            num_clips=num_clips,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def score(self, state: TrainState, views: Views) -> Scores:
        """Scores of the evaluation split."""
        batches = self.eval_batches(views.num_clips)
        scores = evaluate(self.eval_step, state.params, state.batch_stats, batches, self.mesh, views)
        origin = {
            "step": int(state.step),
            "views": len(views.each()),
            **dataclasses.asdict(views),
            "dataset": self.info.name,
            "split": self.config.data.eval_split,
            "num_frames": self.config.data.num_frames,
            "sampling": self.config.data.sampling,
            "dtype": self.config.model.dtype,
            "matmul_precision": self.config.matmul_precision,
        }
        return Scores(*scores, self.info.class_names, origin)


def make_run(config: ConfigDict) -> Run:
    """Builds a run. Nothing is computed yet.

    Raises:
        ValueError: a field of the configuration does not fit the data set or the devices.
    """
    info = load_info(config.data)
    config = with_classes(config, info)
    _check_fields(config)
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
        eval_step=jit_eval_step(model, config, mesh),
    )


def restore_run(config: ConfigDict, workdir: Path, checkpoint: str) -> tuple[Run, TrainState]:
    """A run and its state at a checkpoint of the workdir.

    Args:
        config: run configuration. Its network has to be that of the workdir; data and devices may differ.
        workdir: workdir of a run.
        checkpoint: "best", "latest" or a step.

    Raises:
        WorkdirError: the workdir holds no such checkpoint, or its network differs.
    """
    saved, info = read_config(workdir), load_info(config.data)
    check_same(saved, with_classes(config, info), workdir, section="model.")
    check_dataset(workdir, dataclasses.asdict(info), ("class_names",))
    if config.data.num_frames != saved.data.num_frames:
        logging.warning("Trained on %d frames, evaluated on %d.", saved.data.num_frames, config.data.num_frames)
    if config.data.sampling != saved.data.sampling:
        logging.warning("Trained with data.sampling=%s, evaluated with %s.", saved.data.sampling, config.data.sampling)
    # Fields that only concern training come from the workdir: the state's structure depends on them.
    config = config.copy_and_resolve_references()
    config.update(optimizer=saved.optimizer, epochs=saved.epochs, batch_size=saved.batch_size)
    run = make_run(config)
    checkpoints = Checkpoints(workdir, saved.checkpoint)
    try:
        return run, checkpoints.restore(run.abstract_state(), checkpoints.find(checkpoint))
    finally:
        checkpoints.close()


def with_classes(config: ConfigDict, info: pipeline.DatasetInfo) -> ConfigDict:
    """The configuration with `model.num_classes` set to that of the data set if it was None.

    Raises:
        ValueError: the data set has more classes than the network.
    """
    config, classes = config.copy_and_resolve_references(), len(info.class_names)
    if config.model.num_classes is None:
        config.model.num_classes = classes
    if config.model.num_classes < classes:
        raise ValueError(f"model.num_classes: {info.name} has {classes} classes, got {config.model.num_classes}")
    return config


def load_info(data: ConfigDict) -> pipeline.DatasetInfo:
    """Description of the data set. Process 0 reads it first: it may have to prepare it on a shared disk."""
    if jax.process_count() > 1:
        if jax.process_index() == 0:
            pipeline.load_info(data)
        multihost_utils.sync_global_devices("data set")
    return pipeline.load_info(data)


def _check_fields(config: ConfigDict) -> None:
    counts = "batch_size epochs optimizer.accumulation data.num_frames data.image_size eval.batch_size eval.num_clips"
    intervals = "eval.every_epochs log.every_steps checkpoint.every_steps"
    for name in f"{counts} {intervals}".split():
        value = functools.reduce(getattr, name.split("."), config)
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    choices = {
        "eval.num_crops": tuple(CROP_PLACES),
        "eval.average": AVERAGES,
        "data.sampling": SAMPLINGS,
        "matmul_precision": tuple(PRECISIONS),
    }
    for name, expected in choices.items():
        value = functools.reduce(getattr, name.split("."), config)
        if value not in expected:
            raise ValueError(f"{name}: expected one of {expected}, got {value!r}")
