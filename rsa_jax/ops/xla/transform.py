"""The transform."""

import functools

from jaxtyping import Array, Float

from rsa_jax.ops import factored
from rsa_jax.ops.xla.window_sums import window_sums


def products(rows: Float[Array, "*N L C"], matrix: Float[Array, "*N C D"]) -> Float[Array, "*N L D"]:
    """A product of small matrices at each position."""
    return rows @ matrix


rsa = functools.partial(factored.rsa, window_sums=window_sums, products=products)
