"""Measured time of layers and of the network on this machine, for one clip."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from rsa_jax.costs.traced import LayerCost, abstract_clip, layers_with_parameters
from rsa_jax.nn.watch import layer_name
from rsa_jax.precision import with_precision
from rsa_jax.training.models import blank_model
from rsa_jax.training.state import with_implementation

REPEATS = 5


class Seconds(NamedTuple):
    """Times of a forward pass, and of a forward pass with gradients."""

    forward: float
    both: float


def measure_layers(config: ConfigDict, costs: Sequence[LayerCost]) -> list[Seconds]:
    """Times of each single layer for one clip. Layers of the same kind, shape and size are measured once."""
    model = blank_model(with_implementation(config.model, jax.devices()[0]))
    layers: dict[str, Any] = {layer_name(path): layer for path, layer in layers_with_parameters(model)}
    measured: dict[tuple, Seconds] = {}
    for cost in costs:
        if _kind(cost) not in measured:
            layer = layers[cost.name]
            layer.eval()
            measured[_kind(cost)] = _measure(layer, jnp.ones(cost.input, cost.output.dtype), config.matmul_precision)
    return [measured[_kind(cost)] for cost in costs]


def measure_network(config: ConfigDict) -> Seconds:
    """Times of the whole network for one clip, without dropout and stochastic depth."""
    model = blank_model(with_implementation(config.model, jax.devices()[0]))
    model.eval()
    return _measure(model, jnp.ones(abstract_clip(config).shape), config.matmul_precision)


def _measure(layer: nnx.Module, x: jax.Array, precision: str) -> Seconds:
    graph, state = nnx.split(layer)

    def forward(state: nnx.State, x: jax.Array) -> jax.Array:
        layer: Any = nnx.merge(graph, state, copy=True)
        return layer(x)

    def loss(state: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(forward(state, x)), dtype=jnp.float32)

    programs = (jax.jit(with_precision(function, precision)) for function in (forward, jax.grad(loss, argnums=(0, 1))))
    return Seconds(*(_seconds(program, state, x) for program in programs))


def _seconds(program: Callable, *args: Any) -> float:
    """Median time of `REPEATS` runs, after one that compiles."""
    jax.block_until_ready(program(*args))
    durations = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(program(*args))
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def _kind(cost: LayerCost) -> tuple:
    return cost.kind, cost.input, cost.output.shape, cost.parameters
