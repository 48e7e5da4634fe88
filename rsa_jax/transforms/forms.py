"""The ways to compute the transform on a map. They differ in speed and memory alone."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from rsa_jax.transforms.equations import RSAWeights, per_channel, rsa_explicit, rsa_factored
from rsa_jax.transforms.windows import KernelSize, correlate_banded, correlate_conv, windows

Form = Callable[..., Float[Array, "B T H W L C"]]


def reference(
    query: Float[Array, "B T H W L C"],
    key: Float[Array, "B T H W C"],
    value: Float[Array, "B T H W C"],
    weights: RSAWeights,
    kernel_size: KernelSize,
) -> Float[Array, "B T H W L C"]:
    """Eq. 11 on explicit windows: simple, and O(B N L M C) of memory."""
    return rsa_explicit(query, windows(key, kernel_size), windows(value, kernel_size), weights)


def factored(
    query: Float[Array, "B T H W L C"],
    key: Float[Array, "B T H W C"],
    value: Float[Array, "B T H W C"],
    weights: RSAWeights,
    kernel_size: KernelSize,
    *,
    correlate: Callable[..., Float[Array, "B T H W C E"]],
) -> Float[Array, "B T H W L C"]:
    """Eq. 12, the sums over windows by `correlate`; H2 and G meet the value in one of them.

    Without H2 the value's windows are written out, M C numbers at each position.
    """
    H2, H1, _, G, _ = weights
    key_code = None
    if H1 is not None:
        # `correlate` takes weights of each channel, or such as all share.
        grouped = 1 < H1.shape[1] < key.shape[-1]
        key_code = correlate(key, per_channel(H1, key.shape[-1]) if grouped else H1, kernel_size)
    if H2 is None:
        value_code = jnp.swapaxes(windows(value, kernel_size), -1, -2)
        value_context = None if G is None else correlate(value, G[:, None], kernel_size)
        return rsa_factored(query, key_code, value_code, value_context, weights)
    latent_dim = H2.shape[1]
    per_value = H2 if G is None else jnp.concatenate([H2, G], axis=1)
    value_sums = correlate(value, per_value[:, None], kernel_size)
    value_context = None if G is None else value_sums[..., latent_dim:]
    return rsa_factored(query, key_code, value_sums[..., :latent_dim], value_context, weights)


FORMS: dict[str, Form] = {
    "reference": reference,
    "conv": partial(factored, correlate=correlate_conv),
    "banded": partial(factored, correlate=correlate_banded),
}


# The fastest form for every map that benchmarks/choose_form.py tries on a CPU. Elsewhere nothing was measured; it is
# the one made of matrix products alone. What depends on the map is its blocks: see windows.choose_blocks.
AUTO = "banded"


def get_form(name: str) -> Form:
    """The form of that name; "auto" is the fastest one.

    Raises:
        ValueError: no form has that name.
    """
    if name == "auto":
        name = AUTO
    if name not in FORMS:
        raise ValueError(f"form: expected one of {['auto', *FORMS]}, got {name!r}")
    return FORMS[name]
