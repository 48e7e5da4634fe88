"""The equations of the paper, arXiv 2111.01673, at one position or many.

Letters: `N` any leading dimensions (batch, frames, height, width), M positions of the window, C channels of a
query, D latent dimension, L queries. H = H1 H2ᵀ and P = H2 P1ᵀ are decomposed.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class RSAWeights(NamedTuple):
    """Weights of the transform. What a kernel or a context does not have is None.

    | kernel | H1 | P1 | | context | G | identity |
    |---|---|---|---|---|---|---|
    | "V" | | | | "V" | | |
    | "R" | yes | | | "R" | yes | |
    | "V+R" | yes | yes | | "V+R" | yes | yes |

    A kernel "V" alone has P [M, C] undecomposed, in the place of `H2`. `identity` is the I of Eq. 12, which the
    published layer learns.
    """

    H2: Float[Array, "M D"]
    H1: Float[Array, "M C D"] | None = None
    P1: Float[Array, "C D"] | None = None
    G: Float[Array, "M C"] | None = None
    identity: Float[Array, "C C"] | None = None


def basic_kernel(
    query: Float[Array, "*N L C"], P1: Float[Array, "C D"], H2: Float[Array, "M D"]
) -> Float[Array, "*N L M"]:
    """Basic kernel κ^V = P x^Q, with P = H2 P1ᵀ."""
    return jnp.einsum("...lc,cd,md->...lm", query, P1, H2)


def relational_kernel_hadamard(
    query: Float[Array, "*N L C"],
    key: Float[Array, "*N M C"],
    H1: Float[Array, "M C D"],
    H2: Float[Array, "M D"],
) -> Float[Array, "*N L M"]:
    """κ^R = Hᵀ vec(1(x^Q)ᵀ ⊙ X^K) as Eq. 9 writes it: the product of M C entries is formed for each query."""
    # Not a broadcast product: with one query its gradient crashes XLA on the CPU (jaxlib 0.10.2).
    relation = jnp.einsum("...lc,...mc->...lmc", query, key)
    return jnp.einsum("...lmc,mcd->...ld", relation, H1) @ H2.T


def relational_kernel(
    query: Float[Array, "*N L C"],
    key: Float[Array, "*N M C"],
    H1: Float[Array, "M C D"],
    H2: Float[Array, "M D"],
) -> Float[Array, "*N L M"]:
    """The same kernel with the order switched (Eq. 10): the window meets H1 once for all queries."""
    return latent_kernel(query, jnp.einsum("...mc,mcd->...cd", key, H1)) @ H2.T


def latent_kernel(query: Float[Array, "*N L C"], code: Float[Array, "*N C D"]) -> Float[Array, "*N L D"]:
    """Kernels before H2 spreads them over the window: (P1 + A)ᵀ x^Q of Eq. 12."""
    return jnp.einsum("...lc,...cd->...ld", query, code)


def relational_context(value: Float[Array, "*N M C"], G: Float[Array, "M C"]) -> Float[Array, "*N M C"]:
    """Relational context X^R = X^V ((X^V)ᵀ G): correlations of the channels over the window."""
    return value @ jnp.einsum("...mc,me->...ce", value, G)


def rsa_explicit(
    query: Float[Array, "*N L C"],
    key: Float[Array, "*N M C"],
    value: Float[Array, "*N M C"],
    weights: RSAWeights,
) -> Float[Array, "*N L C"]:
    """y = (κ^V + κ^R)ᵀ (X^V + X^R) (Eq. 11), every kernel and context in full."""
    H2, H1, P1, G, identity = weights
    if H1 is None:
        kernel = query @ H2.T
    else:
        kernel = relational_kernel_hadamard(query, key, H1, H2)
        if P1 is not None:
            kernel += basic_kernel(query, P1, H2)
    context = value
    if G is not None:
        context = relational_context(value, G)
        if identity is not None:
            context += value @ identity
    return kernel @ context


def rsa_factored(
    query: Float[Array, "*N L C"],
    key_code: Float[Array, "*N C D"] | None,
    value_code: Float[Array, "*N C D"],
    value_context: Float[Array, "*N C C"] | None,
    weights: RSAWeights,
) -> Float[Array, "*N L C"]:
    """y = ((P1 + A)ᵀ x^Q)ᵀ (H2ᵀ X^V) (I + (X^V)ᵀ G) (Eq. 12).

    Args:
        query: x^Q of every query.
        key_code: A = Σ_m X^K[m, c] H1[m, c, d], where the kernel has a relational part.
        value_code: (H2ᵀ X^V)ᵀ.
        value_context: (X^V)ᵀ G, where the context has a relational part.
        weights: `P1` and `identity` are used.

    The factors are multiplied from the left, which costs L (2 C D + C²) multiply-adds a position; the product of
    the last two first, as in the published code, costs C² D more for L C² less.
    """
    y = query
    if key_code is not None:
        y = _product(y, key_code if weights.P1 is None else _offset(key_code, weights.P1))
    y = _product(y, jnp.swapaxes(value_code, -1, -2))
    if value_context is None:
        return y
    return _product(y, value_context if weights.identity is None else _offset(value_context, weights.identity))


def _offset(matrix: Float[Array, "*N C D"], offset: Float[Array, "C D"]) -> Float[Array, "*N C D"]:
    """Their sum; in float32 or better, for so is then the sum over all positions that is the offset's gradient."""
    wide = jnp.promote_types(matrix.dtype, jnp.float32)
    return (matrix.astype(wide) + offset.astype(wide)).astype(matrix.dtype)


@jax.custom_vjp
def _product(rows: Float[Array, "*N L C"], matrix: Float[Array, "*N C D"]) -> Float[Array, "*N L D"]:
    return rows @ matrix


def _product_backward(residuals: tuple[Array, Array], grad: Float[Array, "*N L D"]) -> tuple[Array, Array]:
    """The matrix's gradient is written out as a sum over the L rows.

    As a batch of N small products it takes XLA some thirty times as long on a CPU.
    """
    rows, matrix = residuals
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    outer = functools.reduce(
        jnp.add,
        [rows[..., i, :, None].astype(wide) * grad[..., i, None, :].astype(wide) for i in range(rows.shape[-2])],
    )
    return jnp.einsum("...ld,...cd->...lc", grad, matrix), outer.astype(matrix.dtype)


_product.defvjp(lambda rows, matrix: (_product(rows, matrix), (rows, matrix)), _product_backward)
