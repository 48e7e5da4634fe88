"""The transform through grouped convolutions."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops import factored
from rsa_jax.ops.equations import FeatureMap, Queries, RSAWeights
from rsa_jax.ops.windows import KernelSize


def window_sums(
    x: Float[Array, "B T H W C"], weights: Float[Array, " M #C E"], *, kernel_size: KernelSize
) -> Float[Array, "B T H W C E"]:
    """Σ_m x[n + m, c] weights[m, c, e] as a convolution of C groups.

    If the channels share their weights (`weights` is [M, 1, E]), they are folded into the batch instead.
    """
    batch, frames, height, width, channels = x.shape
    groups, outputs = weights.shape[1:]
    if groups == 1:
        x = jnp.moveaxis(x, -1, 1).reshape(batch * channels, frames, height, width, 1)
    y = lax.conv_general_dilated(
        x,
        weights.reshape(*kernel_size, 1, groups * outputs),
        window_strides=(1, 1, 1),
        padding=[(size // 2, size // 2) for size in kernel_size],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=groups,
    )
    if groups == 1:
        return jnp.moveaxis(y.reshape(batch, channels, frames, height, width, outputs), 1, -2)
    return y.reshape(batch, frames, height, width, channels, outputs)


def rsa(query: Queries, key: FeatureMap, value: FeatureMap, weights: RSAWeights, *, kernel_size: KernelSize) -> Queries:
    """Eq. 12 through grouped convolutions."""
    settings: dict[str, Any] = {"kernel_size": kernel_size, "window_sums": window_sums, "products": jnp.matmul}
    return factored.rsa(query, key, value, weights, **settings)
