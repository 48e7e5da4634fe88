"""The transform, with the frames of all clips on the last axis: see window_sums.py."""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights, per_channel
from rsa_jax.ops.windows import KernelSize
from rsa_jax.ops.xla.window_sums import frames_first, frames_last, near_frames, sums_of_frames


def rsa(
    query: Float[Array, "B T H W L C"],
    key: Float[Array, "B T H W C"],
    value: Float[Array, "B T H W C"],
    weights: RSAWeights,
    *,
    kernel_size: KernelSize,
) -> Float[Array, "B T H W L C"]:
    """Eq. 12, its factors multiplied from the left: ((P1 + A)ᵀ x^Q)ᵀ (H2ᵀ X^V) (I + (X^V)ᵀ G)."""
    H2, H1, P1, G, identity = weights
    y, values = frames_last(query), near_frames(value, kernel_size[0])
    if H1 is not None:
        keys = near_frames(key, kernel_size[0])
        grouped = 1 < H1.shape[1] < key.shape[-1]
        code = sums_of_frames(keys, per_channel(H1, key.shape[-1]) if grouped else H1, kernel_size)
        y = multiply(y, code, P1)
    spread = jnp.eye(math.prod(kernel_size), dtype=y.dtype) if H2 is None else H2
    y = multiply(y, jnp.swapaxes(sums_of_frames(values, spread[:, None], kernel_size), 2, 3))
    if G is not None:
        y = multiply(y, sums_of_frames(values, G[:, None], kernel_size), identity)
    return frames_first(y, query.shape[0])


def products(rows: Float[Array, "*N L C"], matrix: Float[Array, "*N C D"]) -> Float[Array, "*N L D"]:
    """A product of small matrices at each position."""
    return rows @ matrix


def multiply(
    rows: Float[Array, "H W L C F"], matrix: Float[Array, "H W C D F"], offset: Float[Array, "C D"] | None = None
) -> Float[Array, "H W L D F"]:
    """A product with a small matrix at each position, and with an offset of all of them.

    A sum over the channels of products of maps, where a matrix unit would be nearly empty.
    """
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    if offset is not None:
        matrix = (matrix.astype(wide) + offset[..., None].astype(wide)).astype(matrix.dtype)
    channels = rows.shape[3]
    by_channel = zip(lax.split(rows, [1] * channels, axis=3), lax.split(matrix, [1] * channels, axis=2), strict=True)
    total = sum(row.astype(wide) * column.astype(wide) for row, column in by_channel)
    return jnp.asarray(total).astype(rows.dtype)
