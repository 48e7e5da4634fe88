"""Normalisation of batches and of vectors."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.xla import normalize


def normalize_batch(
    x: Float[Array, "B T H W C"],
    scale: Float[Array, " C"],
    bias: Float[Array, " C"],
    near: Float[Array, " C"],
    *,
    groups: int,
    epsilon: float,
) -> tuple[Float[Array, "B T H W C"], Float[Array, "G C"], Float[Array, "G C"]]:
    """Normalise by the mean and the (biased) variance of each group of clips; also return both statistics.

    No gradient passes through the statistics. `near` is not used: the feature map is read twice.
    """
    batch, frames, height, width, channels = x.shape
    y, mean, var = _normalize(
        x.reshape(groups, batch // groups * frames, height * width, channels), scale, bias, epsilon
    )
    return y.reshape(x.shape), mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize(
    x: Float[Array, "G T N C"], scale: Float[Array, " C"], bias: Float[Array, " C"], epsilon: float
) -> tuple[Float[Array, "G T N C"], Float[Array, "G C"], Float[Array, "G C"]]:
    """Normalisation with a hand-written gradient: XLA's own sums take twice as long."""
    return _forward(x, scale, bias, epsilon)[0]


def _forward(
    x: Float[Array, "G T N C"], scale: Float[Array, " C"], bias: Float[Array, " C"], epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
    var = jnp.mean(jnp.square(wide - mean), axis=(1, 2), keepdims=True)
    y = normalize(x, mean, var, scale, bias, epsilon)
    return (y, mean[:, 0, 0], var[:, 0, 0]), (x, scale, mean, lax.rsqrt(var + epsilon))


def _backward(
    epsilon: float, residuals: tuple[Array, ...], grads: tuple[Array, Array, Array]
) -> tuple[Float[Array, "G T N C"], Float[Array, " C"], Float[Array, " C"]]:
    x, scale, mean, inverse = residuals
    grad, centred = grads[0].astype(mean.dtype), x - mean
    number = x.shape[1] * x.shape[2]

    def total(x: Float[Array, "G T N C"]) -> Float[Array, "G 1 1 C"]:
        # As a product, which XLA on the CPU fuses with the computation of x; frame by frame, to limit rounding errors.
        ones = jnp.ones(x.shape[:-1], x.dtype)
        frames = jnp.einsum("gtn,gtnc->gtc", ones, x, precision=lax.Precision.HIGHEST)
        return jnp.sum(frames, axis=1)[:, None, None]

    grad_bias, grad_scale = total(grad), total(grad * centred) * inverse
    factor = scale * inverse
    grad_x = factor * grad - (factor * grad_bias + centred * (factor * inverse * grad_scale)) / number
    grad_scale, grad_bias = (jnp.sum(part, axis=(0, 1, 2)).astype(scale.dtype) for part in (grad_scale, grad_bias))
    return grad_x.astype(x.dtype), grad_scale, grad_bias


_normalize.defvjp(_forward, _backward)


def l2_normalize(x: Float[Array, "*N C"]) -> Float[Array, "*N C"]:
    """x / sqrt(Σ x² + 1e-6) over the channels; the sum is taken in float32 or better."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # A matrix product gives every channel the sum: XLA's own sums, fused with the products that follow, take three
    # times as long on a CPU.
    ones = jnp.ones((x.shape[-1], x.shape[-1]), wide.dtype)
    squares = jnp.matmul(wide * wide, ones, precision=lax.Precision.HIGHEST)
    return (wide * lax.rsqrt(squares + 1e-6)).astype(x.dtype)
