"""The transform, with the frames of all clips on the last axis: see window_sums.py."""

import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights, per_channel
from rsa_jax.ops.windows import KernelSize
from rsa_jax.ops.xla.window_sums import frames_first, frames_last, window_sums_of_frames

# Of the channels of a small matrix, when it is multiplied.
PARTS = 8


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
    frames = query.shape[1]
    y, key, value = frames_last(query), frames_last(key), frames_last(value)

    def sums(x: Float[Array, "H W C F"], weights: Float[Array, "M #C E"]) -> Float[Array, "H W C E F"]:
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
    """A product of small matrices at each position."""
    return rows @ matrix


def multiply(
    rows: Float[Array, "H W L C F"], matrix: Float[Array, "H W C D F"], offset: Float[Array, "C D"] | None = None
) -> Float[Array, "H W L D F"]:
    """rows (matrix + offset): a product with a small matrix at each position of each frame.

    A matrix unit would be nearly empty: products are taken element by element. Parts of the channels are added up, and
    only what is left of them is summed: by the compiler's estimate, a TPU takes three times as long for one sum.
    """
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    parts = math.gcd(PARTS, rows.shape[3])
    pairs = zip(jnp.split(rows, parts, axis=3), jnp.split(matrix, parts, axis=2), strict=True)
    products = [row[:, :, :, :, None].astype(wide) * column[:, :, None].astype(wide) for row, column in pairs]
    y = jnp.sum(functools.reduce(jnp.add, products), axis=3).astype(rows.dtype)
    # Not added to the matrix: the offset's gradient would be a sum over all positions of a matrix at each.
    return y if offset is None else y + jnp.einsum("hwlcf,cd->hwldf", rows, offset)
