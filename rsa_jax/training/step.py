"""The training step, from a batch of stored frames to the new state: augmentation, network, loss, update."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from rsa_jax import ops
from rsa_jax.input_pipeline.augmentation import Augmented, augment, example_keys
from rsa_jax.precision import with_precision
from rsa_jax.training.mesh import on_mesh, replicated, split_batch
from rsa_jax.training.optimizer import make_optimizer, make_schedule
from rsa_jax.training.state import (
    ModelDefinition,
    PyTree,
    TrainState,
    abstract_state,
    create_state,
    define_model,
    merge_model,
)

# Keeps step keys distinct from augmentation keys, which are folded from the same seed.
_STEP = 0x57E9

Batch = dict[str, jax.Array]
Metrics = dict[str, Float[Array, ""]]


def cross_entropy(logits: Float[Array, "B K"], label: Int[Array, " B"], smoothing: float) -> Float[Array, " B"]:
    """Per-example label-smoothed cross-entropy."""
    targets = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def make_augment(config: ConfigDict, flip_pairs: Sequence[Sequence[int]]) -> Callable[[Batch], Augmented]:
    """Makes the function from a pipeline batch to the network's input in a training step.

    Args:
        config: run configuration.
        flip_pairs: classes that a horizontal flip turns into others, as `DatasetInfo.flip_pairs`.
    """
    data = config.data

    def augment_batch(batch: Batch) -> Augmented:
        return augment(
            batch["frames"],
            batch["label"],
            example_keys(config.seed, batch["epoch"], batch["index"]),
            image_size=data.image_size,
            crop_scales=data.crop_scales,
            crop_distortion=data.crop_distortion,
            flip=data.flip,
            flip_pairs=flip_pairs,
            policy=data.flip_policy,
        )

    return augment_batch


def make_update(
    model: ModelDefinition, optimizer: optax.GradientTransformation, config: ConfigDict
) -> Callable[[TrainState, Float[Array, "B T H W 3"], Int[Array, " B"]], tuple[TrainState, Metrics]]:
    """The state update from a batch of normalised clips. `make_train_step` applies augmentation first."""
    parts = config.optimizer.accumulation

    def loss(
        params: PyTree, batch_stats: PyTree, clips: jax.Array, label: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, jax.Array]]:
        network = merge_model(model.train, params, batch_stats)
        logits = network(clips, rngs=nnx.Rngs(key))
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == label)
        value = jnp.mean(cross_entropy(logits, label, config.label_smoothing))
        return value, (nnx.to_pure_dict(nnx.state(network, nnx.BatchStat)), accuracy)

    def part(
        params: PyTree, batch_stats: PyTree, clips: jax.Array, label: jax.Array, key: jax.Array
    ) -> tuple[PyTree, PyTree, Metrics]:
        (value, (batch_stats, accuracy)), grads = jax.value_and_grad(loss, has_aux=True)(
            params, batch_stats, clips, label, key
        )
        return grads, batch_stats, {"loss": value, "accuracy": accuracy}

    def accumulated(
        params: PyTree, batch_stats: PyTree, clips: jax.Array, label: jax.Array, key: jax.Array
    ) -> tuple[PyTree, PyTree, Metrics]:
        def body(carry: PyTree, inputs: tuple) -> tuple[PyTree, None]:
            sums, batch_stats = carry
            grads, batch_stats, metrics = part(params, batch_stats, *inputs)
            return (jax.tree.map(jnp.add, sums, (grads, metrics)), batch_stats), None

        # Chunk i takes clips i, i + parts, ...: every device holds an equal number of them, so no clip moves.
        split = [x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for x in (clips, label)]
        inputs = (*split, jax.random.split(key, parts))
        first = jax.tree.map(lambda x: x[0], inputs)
        grads, _, metrics = jax.eval_shape(part, params, batch_stats, *first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (grads, metrics))
        (sums, batch_stats), _ = jax.lax.scan(body, (zeros, batch_stats), inputs)
        grads, metrics = jax.tree.map(lambda leaf: leaf / parts, sums)
        return grads, batch_stats, metrics

    # No loop over a single chunk: XLA's CPU program for it takes four times as long.
    gradients = part if parts == 1 else accumulated

    def update(state: TrainState, clips: jax.Array, label: jax.Array) -> tuple[TrainState, Metrics]:
        grads, batch_stats, metrics = gradients(
            state.params, state.batch_stats, clips, label, step_key(config.seed, state.step)
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {
            "gradient_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(updates),
            "parameter_norm": optax.tree.norm(params),
        }
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return update


def step_key(seed: int, step: Int[Array, ""]) -> Key[Array, ""]:
    """Random key for dropout and stochastic depth in a step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STEP), step)


def make_train_step(
    model: ModelDefinition,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    config: ConfigDict,
    flip_pairs: Sequence[Sequence[int]],
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The training step on a pipeline batch: augmentation, network, loss, update.

    Args:
        model: definition of the model.
        optimizer: from `make_optimizer`.
        schedule: learning rate of the optimizer, for the log.
        config: run configuration.
        flip_pairs: classes that a horizontal flip turns into others, as `DatasetInfo.flip_pairs`.
    """
    augment_batch = make_augment(config, flip_pairs)
    update = make_update(model, optimizer, config)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        augmented = augment_batch(batch)
        new_state, metrics = update(state, augmented.clips, augmented.label)
        return new_state, metrics | {"learning_rate": schedule(state.step)}

    return train_step


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
        on_mesh(mesh, with_precision(step, config.matmul_precision)),
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
