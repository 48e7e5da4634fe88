"""The transform by Eq. 12, for a given implementation of window sums."""

from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float

from rsa_jax.ops.equations import FeatureMap, Products, Queries, RSAWeights, per_channel, rsa_factored
from rsa_jax.ops.windows import KernelSize, windows


class WindowSums(Protocol):
    """Σ_m x[n + m, c] weights[m, c, e]; weights with one channel are shared by all channels."""

    def __call__(
        self, x: Float[Array, "B T H W C"], weights: Float[Array, " M #C E"], *, kernel_size: KernelSize
    ) -> Float[Array, "B T H W C E"]:
        """The sums at every position."""


def rsa(
    query: Queries,
    key: FeatureMap,
    value: FeatureMap,
    weights: RSAWeights,
    *,
    kernel_size: KernelSize,
    window_sums: WindowSums,
    products: Products,
) -> Queries:
    """Eq. 12, with H2 and G applied to the value in one window sum.

    Without H2 the value's windows are materialised, M C numbers at each position.
    """
    H2, H1, _, G, _ = weights
    key_code = None
    if H1 is not None:
        # Window sums take weights for each channel, or weights that all channels share.
        grouped = 1 < H1.shape[1] < key.shape[-1]
        key_code = window_sums(key, per_channel(H1, key.shape[-1]) if grouped else H1, kernel_size=kernel_size)
    if H2 is None:
        value_code = jnp.swapaxes(windows(value, kernel_size), -1, -2)
        value_context = None if G is None else window_sums(value, G[:, None], kernel_size=kernel_size)
        return rsa_factored(query, key_code, value_code, value_context, weights, products)
    latent_dim = H2.shape[1]
    per_value = H2 if G is None else jnp.concatenate([H2, G], axis=1)
    value_sums = window_sums(value, per_value[:, None], kernel_size=kernel_size)
    value_context = None if G is None else value_sums[..., latent_dim:]
    return rsa_factored(query, key_code, value_sums[..., :latent_dim], value_context, weights, products)
