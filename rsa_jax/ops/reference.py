"""The transform as written in the paper. Every other implementation has to agree with it."""

from rsa_jax.ops.equations import FeatureMap, Queries, RSAWeights, rsa_explicit
from rsa_jax.ops.windows import KernelSize, windows


def rsa(query: Queries, key: FeatureMap, value: FeatureMap, weights: RSAWeights, *, kernel_size: KernelSize) -> Queries:
    """Eq. 11 on explicit windows: simple, but with O(B N L M C) memory."""
    return rsa_explicit(query, windows(key, kernel_size), windows(value, kernel_size), weights)
