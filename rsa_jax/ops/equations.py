"""The equations of the paper, arXiv 2111.01673, at one position or many.

Notation: `N` any leading dimensions (batch, frames, height, width), M positions of the window, C channels of a
query, D latent dimension, L queries, G groups of channels in a relation. H = H1 H2ᵀ and P = H2 P1ᵀ are decomposed;
without `H2` they are not.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Queries of the transform, and its keys or values.
Queries = Float[Array, "B T H W L C"]
FeatureMap = Float[Array, "B T H W C"]
# Product of rows [*N, L, C] and a matrix [*N, C, D] at each position.
Products = Callable[[Array, Array], Array]


class RSAWeights(NamedTuple):
    """Weights of the transform. Weights that a kernel or context does not use are None.

    | kernel | H1 | P1 | | context | G | identity |
    |---|---|---|---|---|---|---|
    | "V" | | | | "V" | | |
    | "R" | yes | | | "R" | yes | |
    | "V+R" | yes | yes | | "V+R" | yes | yes |

    The kernel "V" stores P [M, C] undecomposed as `H2`. The other kernels, without `H2`, are undecomposed with D = M:
    `H1` is H [M G, M] and `P1` is Pᵀ [C, M]. `identity` is the I of Eq. 12, which the published layer learns.
    """

    H2: Float[Array, "M D"] | None
    H1: Float[Array, "M G D"] | None = None
    P1: Float[Array, "C D"] | None = None
    G: Float[Array, "M C"] | None = None
    identity: Float[Array, "C C"] | None = None


def basic_kernel(
    query: Float[Array, "*N L C"], P1: Float[Array, "C D"], H2: Float[Array, "M D"] | None
) -> Float[Array, "*N L M"]:
    """Basic kernel κ^V = P x^Q, with P = H2 P1ᵀ."""
    return over_window(query @ P1, H2)


def relation(query: Float[Array, "*N L C"], key: Float[Array, "*N M C"], groups: int) -> Float[Array, "*N L M G"]:
    """Products of query and key, summed over each of G groups of neighbouring channels.

    G = 1 is the dot product X^K x^Q, G = C the Hadamard product 1(x^Q)ᵀ ⊙ X^K.
    """
    query, key = (x.reshape(*x.shape[:-1], groups, -1) for x in (query, key))
    # Not a broadcast product: with one query its gradient crashes XLA on the CPU (jaxlib 0.10.2).
    return jnp.einsum("...lgc,...mgc->...lmg", query, key)


def relational_kernel_explicit(
    query: Float[Array, "*N L C"],
    key: Float[Array, "*N M C"],
    H1: Float[Array, "M G D"],
    H2: Float[Array, "M D"] | None,
) -> Float[Array, "*N L M"]:
    """Relational kernel κ^R = Hᵀ vec(relation) (Eq. 9), with the M G entries of the relation formed for each query."""
    latent = jnp.einsum("...lmg,mgd->...ld", relation(query, key, H1.shape[1]), H1)
    return over_window(latent, H2)


def relational_kernel(
    query: Float[Array, "*N L C"],
    key: Float[Array, "*N M C"],
    H1: Float[Array, "M G D"],
    H2: Float[Array, "M D"] | None,
) -> Float[Array, "*N L M"]:
    """Relational kernel κ^R in the switched order (Eq. 10): the window is multiplied by H1 once for all queries."""
    code = jnp.einsum("...mc,mcd->...cd", key, per_channel(H1, key.shape[-1]))
    return over_window(latent_kernel(query, code), H2)


def per_channel(H1: Float[Array, "M G D"], channels: int) -> Float[Array, "M C D"]:
    """Weights of each channel, repeated from its group. In the switched order, G has no other effect."""
    return jnp.repeat(H1, channels // H1.shape[1], axis=1)


def over_window(latent: Float[Array, "*N L D"], H2: Float[Array, "M D"] | None) -> Float[Array, "*N L M"]:
    """Kernels over the window, from latent kernels. Without H2 they are the same."""
    return latent if H2 is None else latent @ H2.T


def latent_kernel(query: Float[Array, "*N L C"], code: Float[Array, "*N C D"]) -> Float[Array, "*N L D"]:
    """Latent kernels, before H2 expands them over the window: (P1 + A)ᵀ x^Q of Eq. 12."""
    return jnp.einsum("...lc,...cd->...ld", query, code)


def relational_context(value: Float[Array, "*N M C"], G: Float[Array, "M C"]) -> Float[Array, "*N M C"]:
    """Relational context X^R = X^V ((X^V)ᵀ G): channel correlations over the window."""
    return value @ jnp.einsum("...mc,me->...ce", value, G)


def attention_kernels(
    logits: Float[Array, "*N M"], inside: Array | None = None, *, softmax: bool
) -> Float[Array, "*N M"]:
    """Self-attention kernels: the softmax of the logits, or the logits themselves; 0 where not `inside`."""
    if inside is not None:
        # Not -inf: for queries that pad the last block, nothing may be inside, and the gradients of 0 / 0 are not 0.
        logits = jnp.where(inside, logits, jnp.finfo(logits.dtype).min if softmax else 0)
    return jax.nn.softmax(logits, axis=-1) if softmax else logits


def rsa_explicit(
    query: Float[Array, "*N L C"],
    key: Float[Array, "*N M C"],
    value: Float[Array, "*N M C"],
    weights: RSAWeights,
) -> Float[Array, "*N L C"]:
    """y = (κ^V + κ^R)ᵀ (X^V + X^R) (Eq. 11), with every kernel and context materialised."""
    H2, H1, P1, G, identity = weights
    if H1 is None:
        kernel = over_window(query, H2)
    else:
        kernel = relational_kernel_explicit(query, key, H1, H2)
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
    products: Products,
) -> Float[Array, "*N L C"]:
    """y = ((P1 + A)ᵀ x^Q)ᵀ (H2ᵀ X^V) (I + (X^V)ᵀ G) (Eq. 12).

    Args:
        query: x^Q of every query.
        key_code: A = Σ_m X^K[m, c] H1[m, g, d], where c is in group g; None if the kernel has no relational part.
        value_code: (H2ᵀ X^V)ᵀ; without H2, (X^V)ᵀ.
        value_context: (X^V)ᵀ G; None if the context has no relational part.
        weights: only `P1` and `identity` are used.
        products: matrix product at each position.

    The factors are multiplied from the left, which costs L (2 C D + C²) MACs per position. Multiplying the last two
    first, as in the published code, costs C² D more and L C² less.
    """
    y = query
    if key_code is not None:
        y = products(y, key_code if weights.P1 is None else _offset(key_code, weights.P1))
    y = products(y, jnp.swapaxes(value_code, -1, -2))
    if value_context is None:
        return y
    return products(y, value_context if weights.identity is None else _offset(value_context, weights.identity))


def _offset(matrix: Float[Array, "*N C D"], offset: Float[Array, "C D"]) -> Float[Array, "*N C D"]:
    """matrix + offset, added in float32 or better: the offset's gradient is a sum over all positions."""
    wide = jnp.promote_types(matrix.dtype, jnp.float32)
    return (matrix.astype(wide) + offset.astype(wide)).astype(matrix.dtype)
