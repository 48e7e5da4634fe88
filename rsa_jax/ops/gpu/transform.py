"""The transform through Pallas kernels."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops import xla
from rsa_jax.ops.devices import number_of_devices, on_each_device
from rsa_jax.ops.equations import FeatureMap, Queries, RSAWeights, per_channel
from rsa_jax.ops.gpu.backward import backward
from rsa_jax.ops.gpu.forward import forward
from rsa_jax.ops.gpu.positions import make_operands
from rsa_jax.ops.gpu.sizes import Sizes, make_sizes
from rsa_jax.ops.gpu.window_sums import map_grad, weights_grad
from rsa_jax.ops.windows import KernelSize

TYPES = {jnp.dtype(name) for name in ("bfloat16", "float16", "float32")}


def rsa(query: Queries, key: FeatureMap, value: FeatureMap, weights: RSAWeights, *, kernel_size: KernelSize) -> Queries:
    """Eq. 12 in one kernel, and its gradients in five. Only the arguments are kept for the gradients.

    Falls back to plain JAX for undecomposed weights, for more channels or queries than registers hold, for arrays of
    2³¹ or more numbers on a device, for dtypes other than bfloat16, float16 and float32, and for mixed dtypes.

    Products of float32 follow `jax_default_matmul_precision`: the default on GPUs is TensorFloat-32.
    """
    if weights.H1 is None:
        weights = weights._replace(P1=None)
    if weights.G is None:
        weights = weights._replace(identity=None)
    if not _has_kernels(query, key, value, weights, kernel_size):
        return xla.rsa(query, key, value, weights, kernel_size=kernel_size)
    if weights.H1 is not None:
        weights = weights._replace(H1=per_channel(weights.H1, key.shape[-1]))
    return jnp.swapaxes(_rsa(kernel_size, query, key, value, weights), -1, -2)


def _has_kernels(query: Array, key: Array, value: Array, weights: RSAWeights, kernel_size: KernelSize) -> bool:
    types = {x.dtype for x in jax.tree.leaves((query, key, value, weights))}
    if weights.H2 is None or len(types) > 1 or not types <= TYPES:
        return False
    if weights.H1 is None and weights.H2.shape[1] != query.shape[-1]:
        return False  # plain JAX raises
    sizes, devices = make_sizes(query, weights, kernel_size), number_of_devices()
    if sizes.clips % devices == 0:
        sizes = dataclasses.replace(sizes, clips=sizes.clips // devices)
    return sizes.fit()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rsa(
    kernel_size: KernelSize, query: Array, key: Array, value: Array, weights: RSAWeights
) -> Float[Array, "B T H W C L"]:
    def transform(query: Array, key: Array, value: Array, weights: RSAWeights) -> Array:
        sizes = make_sizes(query, weights, kernel_size)
        y = _on_platform(functools.partial(forward, sizes=sizes), make_operands(query, key, value, weights, sizes))
        return y.reshape(*query.shape[:-2], sizes.channels, sizes.queries)

    return _on_each_device(transform, query, key, value, weights, in_axes=(0, 0, 0, None), out_axes=0)


def _forward(kernel_size: KernelSize, *arguments: Any) -> tuple[Array, tuple[Any, ...]]:
    return _rsa(kernel_size, *arguments), arguments


def _backward(kernel_size: KernelSize, arguments: tuple[Any, ...], y_grad: Array) -> tuple[Any, ...]:
    def gradients(query: Array, key: Array, value: Array, weights: RSAWeights, y_grad: Array) -> tuple[Any, ...]:
        sizes = make_sizes(query, weights, kernel_size)
        operands = make_operands(query, key, value, weights, sizes)
        grads = _on_platform(functools.partial(backward, sizes=sizes), operands, y_grad.reshape(-1))
        query_grad = grads.query.reshape(query.shape)
        value_grad, value_weights = _sums_grads(value, _value_weights(weights), grads.value_sums, sizes)
        weight_grads = RSAWeights(jnp.sum(value_weights[..., : sizes.latent], axis=1))
        if weights.G is not None:
            weight_grads = weight_grads._replace(G=jnp.sum(value_weights[..., sizes.latent :], axis=1))
        key_grad = jnp.zeros_like(key)
        if weights.H1 is not None:
            key_grad, H1 = _sums_grads(key, weights.H1, grads.key_sums, sizes)
            weight_grads = weight_grads._replace(H1=H1)
        for name in ("P1", "identity"):
            if getattr(weights, name) is not None:
                total = getattr(grads, name).reshape(-1, *getattr(weights, name).shape).sum(axis=0)
                weight_grads = weight_grads._replace(**{name: total})
        return query_grad, key_grad, value_grad, jax.tree.map(lambda x: x[None], weight_grads)

    *map_grads, weight_grads = _on_each_device(
        gradients, *arguments, y_grad, in_axes=(0, 0, 0, None, 0), out_axes=(0, 0, 0, 0)
    )
    # Each device has its own gradients of the weights.
    weight_grads = jax.tree.map(lambda x: jnp.sum(x, axis=0), weight_grads)
    return jax.tree.map(lambda grad, x: grad.astype(x.dtype), (*map_grads, weight_grads), arguments)


_rsa.defvjp(_forward, _backward)


def _value_weights(weights: RSAWeights) -> Float[Array, "M 1 D+C"]:
    """Weights of all window sums of the value."""
    assert weights.H2 is not None
    both = weights.H2 if weights.G is None else jnp.concatenate([weights.H2, weights.G], axis=1)
    return both[:, None]


def _sums_grads(
    x: Float[Array, "B T H W C"], weights: Float[Array, " M #C E"], grad: Float[Array, " N"], sizes: Sizes
) -> tuple[Float[Array, "B T H W C"], Float[Array, "M C E"]]:
    """Gradients of a feature map and of each channel's weights, given the gradient of the window sums."""
    of_map = _on_platform(functools.partial(map_grad, sizes=sizes), weights, grad)
    of_weights = functools.partial(weights_grad, outputs=weights.shape[-1], sizes=sizes)
    return of_map, _on_platform(of_weights, x, grad)


def _on_each_device(function: Callable[..., Any], query: Array, *others: Any, **axes: Any) -> Any:
    return on_each_device(function, query, *others, **axes, clips=len(query), kernels=True)


def _on_platform(kernel: Callable[..., Any], *arrays: Any) -> Any:
    """Run a kernel. It is interpreted if the program is not compiled for an NVIDIA GPU."""
    functions = {platform: functools.partial(kernel, interpret=platform != "cuda") for platform in ("cuda", "default")}
    return lax.platform_dependent(*arrays, **functions)
