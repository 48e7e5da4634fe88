"""The transform by kernels of its own."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops import xla
from rsa_jax.ops.devices import on_each_device
from rsa_jax.ops.equations import RSAWeights, per_channel
from rsa_jax.ops.tpu.backward import backward
from rsa_jax.ops.tpu.forward import forward
from rsa_jax.ops.tpu.operands import (
    Maps,
    make_operands,
    make_sizes,
    order_maps,
    order_results,
    order_weights,
    output,
)
from rsa_jax.ops.tpu.tiles import LANES, Tile, choose_tile
from rsa_jax.ops.windows import KernelSize

TYPES = {jnp.dtype(name) for name in ("bfloat16", "float32", "float64")}


def rsa(
    query: Float[Array, "B T H W L C"],
    key: Float[Array, "B T H W C"],
    value: Float[Array, "B T H W C"],
    weights: RSAWeights,
    *,
    kernel_size: KernelSize,
) -> Float[Array, "B T H W L C"]:
    """Eq. 12 in one kernel, and its gradients in another. Only the arguments are kept for them.

    Falls back to plain JAX for undecomposed weights, for weights too large for VMEM, for clips of more than 128 frames,
    and for types other than bfloat16 and float32 (float64 where the kernels are interpreted), or several at once.
    """
    tile = None
    types = {x.dtype for x in jax.tree.leaves((query, key, value, weights))}
    if weights.H2 is not None and query.shape[1] <= LANES and len(types) == 1 and types <= TYPES:
        tile = choose_tile(make_sizes(query, weights, kernel_size))
    if tile is None:
        return xla.rsa(query, key, value, weights, kernel_size=kernel_size)
    if weights.H1 is None:
        return _rsa(tile, Maps(query, None, value), weights)
    weights = weights._replace(H1=per_channel(weights.H1, key.shape[-1]))
    return _rsa(tile, Maps(query, key, value), weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rsa(tile: Tile, maps: Maps, weights: RSAWeights) -> Float[Array, "B T H W L C"]:
    def transform(maps: Maps, weights: RSAWeights) -> Array:
        return output(_on_platform(forward, tile, make_operands(maps, weights, tile)), maps.query.shape)

    return on_each_device(transform, maps, weights, in_axes=(0, None), out_axes=0, clips=len(maps.query), kernels=True)


def _forward(tile: Tile, maps: Maps, weights: RSAWeights) -> tuple[Array, tuple[Maps, RSAWeights]]:
    return _rsa(tile, maps, weights), (maps, weights)


def _backward(tile: Tile, arguments: tuple[Maps, RSAWeights], y_grad: Array) -> tuple[Maps, RSAWeights]:
    def gradients(maps: Maps, y_grad: Array, weights: RSAWeights) -> tuple[Maps, RSAWeights]:
        grads = _on_platform(backward, tile, make_operands(maps, weights, tile), order_results(y_grad, tile))
        map_grads = _pull_back(lambda maps: order_maps(maps, tile), maps, tuple(grads[:3]))
        weight_grads = _pull_back(lambda weights: order_weights(weights, tile), weights, tuple(grads[3:]))
        return map_grads, jax.tree.map(lambda x: x[None], weight_grads)

    maps, weights = arguments
    map_grads, weight_grads = on_each_device(
        gradients, maps, y_grad, weights, in_axes=(0, 0, None), out_axes=0, clips=len(y_grad), kernels=True
    )
    # Weights' gradients come from each device.
    weight_grads = jax.tree.map(lambda x: jnp.sum(x, axis=0), weight_grads)
    return jax.tree.map(lambda grad, x: grad.astype(x.dtype), (map_grads, weight_grads), (maps, weights))


_rsa.defvjp(_forward, _backward)


def _pull_back(linear: Callable[[Any], Any], argument: Any, grads: Any) -> Any:
    """The argument's gradient by a linear function, in float32 or better."""

    def wide(x: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, jnp.promote_types(x.dtype, jnp.float32))

    transposed = jax.linear_transpose(linear, jax.tree.map(wide, argument))
    (result,) = transposed(jax.tree.map(lambda x: x.astype(wide(x).dtype), grads))
    return result


def _on_platform(kernel: Callable[..., Any], tile: Tile, *arrays: Any) -> Any:
    """Runs a kernel; where the program is not compiled for a TPU, step by step."""
    functions = {
        platform: functools.partial(kernel, tile=tile, interpret=platform != "tpu") for platform in ("tpu", "default")
    }
    return lax.platform_dependent(*arrays, **functions)
