"""The transform through band matrices, and products of small matrices at each position."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rsa_jax.ops import factored
from rsa_jax.ops.cpu.window_sums import window_sums
from rsa_jax.ops.equations import FeatureMap, Queries, RSAWeights
from rsa_jax.ops.windows import KernelSize


@jax.custom_vjp
def products(rows: Float[Array, "*N L C"], matrix: Float[Array, "*N C D"]) -> Float[Array, "*N L D"]:
    """Product of small matrices at each position."""
    return rows @ matrix


def _products_backward(residuals: tuple[Array, Array], grad: Float[Array, "*N L D"]) -> tuple[Array, Array]:
    """Gradients of the rows and the matrix. The matrix's is written as a sum over the L rows.

    As a batch of N small products it takes XLA about thirty times as long.
    """
    rows, matrix = residuals
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    outer = functools.reduce(
        jnp.add,
        [rows[..., i, :, None].astype(wide) * grad[..., i, None, :].astype(wide) for i in range(rows.shape[-2])],
    )
    return jnp.einsum("...ld,...cd->...lc", grad, matrix), outer.astype(matrix.dtype)


products.defvjp(lambda rows, matrix: (products(rows, matrix), (rows, matrix)), _products_backward)


def rsa(query: Queries, key: FeatureMap, value: FeatureMap, weights: RSAWeights, *, kernel_size: KernelSize) -> Queries:
    """Eq. 12 through band matrices."""
    settings: dict[str, Any] = {"kernel_size": kernel_size, "window_sums": window_sums, "products": products}
    return factored.rsa(query, key, value, weights, **settings)
