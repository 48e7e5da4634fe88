"""What a run is made of: the arrays that a step changes, and the model they belong to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int
from ml_collections import ConfigDict

from rsa_jax import ops
from rsa_jax.nn.network import TSNResNet, create_model

PyTree = Any


class TrainState(NamedTuple):
    """All that a checkpoint holds, as a plain pytree of arrays.

    The order of data and the random numbers are functions of (seed, step) and need no place here.
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState


class ModelDefinition(NamedTuple):
    """The model without its arrays, in training and in evaluation mode."""

    train: nnx.GraphDef
    eval: nnx.GraphDef


def define_model(config: ConfigDict, device: jax.Device | None = None) -> ModelDefinition:
    """The definitions of `config.model`; computes nothing.

    Args:
        config: `model` of the configuration.
        device: on which the model will run, or one of them, where that is known; see `ops.preferred`.

    Raises:
        ValueError: a field of the configuration is wrong.
    """

    if device is not None:
        config = with_implementation(config, device)

    def define(mode: str) -> nnx.GraphDef:
        model = nnx.eval_shape(lambda: create_model(config, rngs=nnx.Rngs(0)))
        getattr(model, mode)()
        return nnx.graphdef(model)

    return ModelDefinition(define("train"), define("eval"))


def with_implementation(config: ConfigDict, device: jax.Device) -> ConfigDict:
    """`model` of a configuration with the implementation of its operations named: by default that of the device."""
    config = config.copy_and_resolve_references()
    config.implementation = config.implementation or ops.preferred(device)
    return config


def create_state(config: ConfigDict, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. A function of `config` and its seed; traceable."""
    params, batch_stats = split_model(create_model(config.model, rngs=nnx.Rngs(config.seed)))
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))


def abstract_state(init: Callable[[], TrainState], mesh: jax.sharding.Mesh) -> TrainState:
    """Shapes, types and shardings of the state that `init` makes, held in whole by every device."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), jax.eval_shape(init)
    )


def split_model(model: TSNResNet) -> tuple[PyTree, PyTree]:
    """Parameters and running statistics of a model, as nested dicts of arrays."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def merge_model(graph: nnx.GraphDef, params: PyTree, batch_stats: PyTree) -> TSNResNet:
    """The model with these arrays; it shares none of its variables with another one."""
    return nnx.merge(graph, nnx.State(params), nnx.State(batch_stats), copy=True)


def make_mesh() -> jax.sharding.Mesh:
    """All devices of all hosts along one axis, over which batches are split."""
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), (ops.BATCH_AXIS,), axis_types=auto)


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Every device holds the whole array."""
    return jax.NamedSharding(mesh, jax.P())


def split_batch(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Every device holds its part of the first axis."""
    return jax.NamedSharding(mesh, jax.P(ops.BATCH_AXIS))


def to_devices(mesh: jax.sharding.Mesh, batch: dict[str, Any]) -> dict[str, jax.Array]:
    """The global batch, of which this process brings its share; without `id`, since devices hold no text."""
    numbers = {name: value for name, value in batch.items() if name != "id"}
    return jax.make_array_from_process_local_data(split_batch(mesh), numbers)
