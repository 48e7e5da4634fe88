"""The transform as written in the paper. Every other implementation has to agree with it."""

from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights, rsa_explicit
from rsa_jax.ops.windows import KernelSize, windows


def rsa(
    query: Float[Array, "B T H W L C"],
    key: Float[Array, "B T H W C"],
    value: Float[Array, "B T H W C"],
    weights: RSAWeights,
    *,
    kernel_size: KernelSize,
) -> Float[Array, "B T H W L C"]:
    """Eq. 11 on explicit windows: simple, but with O(B N L M C) memory."""
    return rsa_explicit(query, windows(key, kernel_size), windows(value, kernel_size), weights)
