"""Normalisation of batches and of vectors."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.xla.frames import frames_first, frames_last


def normalize(
    x: Float[Array, "*N C"],
    mean: Float[Array, "*#N C"],
    var: Float[Array, "*#N C"],
    scale: Float[Array, " C"],
    bias: Float[Array, " C"],
    epsilon: float,
) -> Float[Array, "*N C"]:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, in the dtype of `x`."""
    return ((x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias).astype(x.dtype)


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

    Both come from one pass over the feature map. Relative to a point near the mean, the variance loses no digits to the
    difference of two large numbers.
    """
    batch, frames, height, width, channels = x.shape
    # Frames of all clips in one axis, pixels in another: with more axes, the TPU compiler chooses a layout that
    # convolutions have to change.
    grouped = x.reshape(groups, batch // groups * frames, height * width, channels)
    others, point = (1, 2), lax.stop_gradient(near)
    centred = grouped.astype(jnp.promote_types(x.dtype, jnp.float32)) - point
    offset = jnp.mean(centred, axis=others, keepdims=True)
    var = jnp.maximum(jnp.mean(jnp.square(centred), axis=others, keepdims=True) - jnp.square(offset), 0)
    mean = offset + point
    y = normalize(grouped, mean, var, scale, bias, epsilon)
    return y.reshape(x.shape), mean.reshape(groups, -1), var.reshape(groups, -1)


def l2_normalize(x: Float[Array, "B T H W *L C"]) -> Float[Array, "B T H W *L C"]:
    """x / sqrt(Σ x² + 1e-6) over the channels, computed in the transform's order of axes."""
    y = frames_last(x)
    wide = y.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = (wide * lax.rsqrt(jnp.sum(wide * wide, axis=-2, keepdims=True) + 1e-6)).astype(x.dtype)
    return frames_first(y, x.shape[1])
