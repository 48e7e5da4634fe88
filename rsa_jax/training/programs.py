"""Jitted training and evaluation steps for the devices of a mesh."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from rsa_jax import ops
from rsa_jax.evaluation.evaluator import EvalStep, make_eval_step
from rsa_jax.precision import with_precision
from rsa_jax.training.optimizer import make_optimizer, make_schedule
from rsa_jax.training.state import (
    ModelDefinition,
    abstract_state,
    create_state,
    define_model,
    replicated,
    split_batch,
)
from rsa_jax.training.step import make_train_step


def jit_train_step(
    model: ModelDefinition,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    config: ConfigDict,
    flip_pairs: Sequence[Sequence[int]],
    mesh: jax.sharding.Mesh,
) -> Any:
    """`make_train_step`, jitted: the batch is split over the mesh, and the old state is donated."""
    step = make_train_step(model, optimizer, schedule, config, flip_pairs)
    whole, parts = replicated(mesh), split_batch(mesh)
    return jax.jit(
        _on(mesh, with_precision(step, config.matmul_precision)),
        in_shardings=(whole, parts),
        out_shardings=whole,
        donate_argnums=0,
        compiler_options=ops.compiler_options(mesh.devices.flat[0].platform),
    )


def lower_train_step(config: ConfigDict, mesh: jax.sharding.Mesh, frame_size: tuple[int, int]) -> jax.stages.Lowered:
    """The lowered training step, ready to compile for a mesh whose devices need not exist.

    Args:
        config: run configuration, with `model.num_classes` set.
        mesh: mesh over whose devices the batch is split.
        frame_size: height and width of the data set's frames.

    Raises:
        ValueError: a field of the configuration is invalid.
    """
    schedule = make_schedule(config.optimizer, epochs=config.epochs, steps_per_epoch=1000)
    optimizer = make_optimizer(config.optimizer, schedule)
    model = define_model(config.model, mesh.devices.flat[0])
    state = abstract_state(lambda: create_state(config, optimizer), mesh)
    step = jit_train_step(model, optimizer, schedule, config, (), mesh)
    return step.lower(state, abstract_batch(config, frame_size))


def jit_eval_step(model: ModelDefinition, config: ConfigDict, mesh: jax.sharding.Mesh) -> EvalStep:
    """`make_eval_step`, jitted: the batch is split over the mesh, and the results are replicated."""
    whole, parts = replicated(mesh), split_batch(mesh)
    return jax.jit(
        _on(mesh, with_precision(make_eval_step(model, config), config.matmul_precision)),
        in_shardings=(whole, whole, parts, whole),
        out_shardings=whole,
    )


def _on(mesh: jax.sharding.Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, traced under the mesh: some operations need to know their devices."""

    @functools.wraps(function)
    def on_mesh(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return on_mesh


def abstract_batch(config: ConfigDict, frame_size: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a training batch from the pipeline.

    Args:
        config: run configuration.
        frame_size: height and width of the data set's frames.
    """
    batch = config.batch_size
    frames = jax.ShapeDtypeStruct((batch, config.data.num_frames, *frame_size, 3), np.uint8)
    number = jax.ShapeDtypeStruct((batch,), np.int32)
    mask = jax.ShapeDtypeStruct((batch,), np.float32)
    return {"frames": frames, "label": number, "index": number, "epoch": number, "mask": mask}
