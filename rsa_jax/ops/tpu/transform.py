"""The transform through Pallas kernels."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops import xla
from rsa_jax.ops.devices import on_each_device
from rsa_jax.ops.equations import FeatureMap, Queries, RSAWeights, per_channel
from rsa_jax.ops.tpu.backward import backward
from rsa_jax.ops.tpu.forward import forward
from rsa_jax.ops.tpu.operands import (
    Maps,
    cut_results,
    make_operands,
    make_sizes,
    order_maps,
    order_results,
    order_weights,
)
from rsa_jax.ops.tpu.tiles import LANES, Tile, choose_tile
from rsa_jax.ops.windows import KernelSize
from rsa_jax.ops.xla.frames import frames_first, frames_last

TYPES = {jnp.dtype(name) for name in ("bfloat16", "float32", "float64")}


def rsa(query: Queries, key: FeatureMap, value: FeatureMap, weights: RSAWeights, *, kernel_size: KernelSize) -> Queries:
    """Eq. 12 in one kernel, and its gradients in another. Only the arguments are kept for the gradients.

    Falls back to plain JAX for undecomposed weights, for weights too large for VMEM, for clips of more than 128 frames,
    for dtypes other than bfloat16 and float32 (and float64 if the kernels are interpreted), and for mixed dtypes.
    """
    tile = None
    types = {x.dtype for x in jax.tree.leaves((query, key, value, weights))}
    if weights.H2 is not None and query.shape[1] <= LANES and len(types) == 1 and types <= TYPES:
        tile = choose_tile(make_sizes(query, weights, kernel_size))
    if tile is None:
        return xla.rsa(query, key, value, weights, kernel_size=kernel_size)
    maps = Maps(frames_last(query), frames_last(key), frames_last(value))
    if weights.H1 is None:
        maps = maps._replace(key=None)
    else:
        weights = weights._replace(H1=per_channel(weights.H1, key.shape[-1]))
    y = frames_first(_rsa(tile, maps, weights), query.shape[1])
    return jnp.swapaxes(y.reshape(*y.shape[:-1], *query.shape[:-3:-1]), -1, -2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rsa(tile: Tile, maps: Maps, weights: RSAWeights) -> Float[Array, "H W C*L F"]:
    def transform(query: Array, key: Array | None, value: Array, weights: RSAWeights) -> Array:
        operands = make_operands(Maps(query, key, value), weights, tile)
        return cut_results(_on_platform(forward, tile, operands), query, tile)

    return _on_each_device(transform, tile, *maps, weights, in_axes=(4, 3, 3, None), out_axes=3)


def _forward(tile: Tile, maps: Maps, weights: RSAWeights) -> tuple[Array, tuple[Maps, RSAWeights]]:
    return _rsa(tile, maps, weights), (maps, weights)


def _backward(tile: Tile, arguments: tuple[Maps, RSAWeights], y_grad: Array) -> tuple[Maps, RSAWeights]:
    def gradients(
        query: Array, key: Array | None, value: Array, weights: RSAWeights, y_grad: Array
    ) -> tuple[Array, Array | None, Array, RSAWeights]:
        maps = Maps(query, key, value)
        grads = _on_platform(backward, tile, make_operands(maps, weights, tile), order_results(y_grad, tile))
        map_grads = _pull_back(lambda maps: order_maps(maps, tile), maps, tuple(grads[:3]))
        weight_grads = _pull_back(lambda weights: order_weights(weights, tile), weights, tuple(grads[3:]))
        return *map_grads, jax.tree.map(lambda x: x[None], weight_grads)

    maps, weights = arguments
    *map_grads, weight_grads = _on_each_device(
        gradients, tile, *maps, weights, y_grad, in_axes=(4, 3, 3, None, 3), out_axes=(4, 3, 3, 0)
    )
    # Each device has its own gradients of the weights.
    weight_grads = jax.tree.map(lambda x: jnp.sum(x, axis=0), weight_grads)
    return jax.tree.map(lambda grad, x: grad.astype(x.dtype), (Maps(*map_grads), weight_grads), (maps, weights))


_rsa.defvjp(_forward, _backward)


def _on_each_device(function: Callable[..., Any], tile: Tile, query: Array, *others: Any, **axes: Any) -> Any:
    clips = query.shape[-1] // tile.sizes.frames
    return on_each_device(function, query, *others, **axes, clips=clips, kernels=True)


def _pull_back(linear: Callable[[Any], Any], argument: Any, grads: Any) -> Any:
    """Gradient of a linear function's argument, in float32 or better."""

    def wide(x: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, jnp.promote_types(x.dtype, jnp.float32))

    transposed = jax.linear_transpose(linear, jax.tree.map(wide, argument))
    (result,) = transposed(jax.tree.map(lambda x: x.astype(wide(x).dtype), grads))
    return result


def _on_platform(kernel: Callable[..., Any], tile: Tile, *arrays: Any) -> Any:
    """Run a kernel. It is interpreted if the program is not compiled for a TPU."""
    functions = {
        platform: functools.partial(kernel, tile=tile, interpret=platform != "tpu") for platform in ("tpu", "default")
    }
    return lax.platform_dependent(*arrays, **functions)
