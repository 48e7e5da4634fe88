"""The transform, with the frames of all clips on the last axis (see frames.py)."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from rsa_jax.ops.equations import FeatureMap, Queries, RSAWeights, per_channel
from rsa_jax.ops.windows import KernelSize
from rsa_jax.ops.xla.frames import frames_first, frames_last
from rsa_jax.ops.xla.window_sums import window_sums_of_frames


def rsa(query: Queries, key: FeatureMap, value: FeatureMap, weights: RSAWeights, *, kernel_size: KernelSize) -> Queries:
    """Eq. 12, with its factors multiplied from the left: ((P1 + A)ᵀ x^Q)ᵀ (H2ᵀ X^V) (I + (X^V)ᵀ G)."""
    H2, H1, P1, G, identity = weights
    frames = query.shape[1]
    y, key, value = frames_last(query), frames_last(key), frames_last(value)

    def sums(x: Float[Array, "H W C F"], weights: Float[Array, " M #C E"]) -> Float[Array, "H W C E F"]:
        return window_sums_of_frames(x, weights, kernel_size, frames)

    if H1 is not None:
        grouped = 1 < H1.shape[1] < key.shape[2]
        y = multiply(y, sums(key, per_channel(H1, key.shape[2]) if grouped else H1), P1)
    spread = jnp.eye(math.prod(kernel_size), dtype=y.dtype) if H2 is None else H2
    y = multiply(y, jnp.swapaxes(sums(value, spread[:, None]), 2, 3))
    if G is not None:
        y = multiply(y, sums(value, G[:, None]), identity)
    return frames_first(y, frames)


def products(rows: Float[Array, "*N L C"], matrix: Float[Array, "*N C D"]) -> Float[Array, "*N L D"]:
    """Product of small matrices at each position."""
    return rows @ matrix


def multiply(
    rows: Float[Array, "H W L C F"], matrix: Float[Array, "H W C D F"], offset: Float[Array, "C D"] | None = None
) -> Float[Array, "H W L D F"]:
    """rows (matrix + offset): a product with a small matrix at each position of each frame.

    A matrix unit would be nearly empty, so products are taken element by element, and summed in float32 or better.
    """
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    matrix = matrix.astype(wide)
    if offset is not None:
        # In float32: the offset's gradient is a sum over all positions.
        matrix = (matrix + offset[..., None].astype(wide)).astype(rows.dtype).astype(wide)
    return jnp.sum(rows.astype(wide)[:, :, :, :, None] * matrix[:, :, None], axis=3).astype(rows.dtype)
