"""Training state: the arrays that a step changes, and the definition of the model they belong to."""

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
from rsa_jax.training.mesh import replicated

PyTree = Any


class TrainState(NamedTuple):
    """Contents of a checkpoint, as a plain pytree of arrays.

    The data order and the random numbers are functions of (seed, step) and need not be stored.
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
    """Definition of the network in `config`. Nothing is computed.

    Args:
        config: `model` section of the configuration.
        device: a device that the model will run on, if known; see `ops.preferred`.

    Raises:
        ValueError: a field of the configuration is invalid.
    """

    if device is not None:
        config = with_implementation(config, device)

    def define(mode: str) -> nnx.GraphDef:
        model = nnx.eval_shape(lambda: create_model(config, rngs=nnx.Rngs(0)))
        getattr(model, mode)()
        return nnx.graphdef(model)

    return ModelDefinition(define("train"), define("eval"))


def with_implementation(config: ConfigDict, device: jax.Device) -> ConfigDict:
    """The `model` section with `implementation` set: by default, to the one preferred on the device."""
    config = config.copy_and_resolve_references()
    config.implementation = config.implementation or ops.preferred(device)
    return config


def create_state(config: ConfigDict, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step: a traceable function of `config` and its seed."""
    params, batch_stats = split_model(create_model(config.model, rngs=nnx.Rngs(config.seed)))
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))


def abstract_state(init: Callable[[], TrainState], mesh: jax.sharding.Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state that `init` creates, replicated on every device."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), jax.eval_shape(init)
    )


def split_model(model: TSNResNet) -> tuple[PyTree, PyTree]:
    """Parameters and running statistics of a model, as nested dicts of arrays."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def merge_model(graph: nnx.GraphDef, params: PyTree, batch_stats: PyTree) -> TSNResNet:
    """The model with these arrays. It shares no variables with any other model."""
    return nnx.merge(graph, nnx.State(params), nnx.State(batch_stats), copy=True)
