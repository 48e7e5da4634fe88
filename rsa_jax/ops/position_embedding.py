"""Sinusoidal position features along the axes of a feature map, and their use in attention."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

# Wavelengths, in positions, of the sinusoids along an axis. Each has a sine and a cosine.
WAVELENGTHS = tuple(4.0 * 2**i for i in range(8))
SINUSOIDS = 2 * len(WAVELENGTHS)


def offset_logits(
    query: Float[Array, "B T H W L c"], embedding: Float[Array, "3 S #L c"]
) -> tuple[Float[Array, "B T H W L length"], ...]:
    """q_nᵀ R s(m - n) as a sum of three terms, which depend on the frame, the row and the column of m.

    By the angle difference identities, each term is a product of the sinusoids of m and those of n.
    """
    logits = []
    for axis, weights in enumerate(embedding):
        places = sinusoids(query.shape[1 + axis])
        others = [other for other in range(4) if other != axis]  # of T H W L
        sine, cosine = jnp.split(jnp.expand_dims(places, others), 2, axis=-1)
        weights = jnp.broadcast_to(weights, (weights.shape[0], *query.shape[4:]))
        by_sine, by_cosine = jnp.split(jnp.einsum("...lc,slc->...ls", query, weights), 2, axis=-1)
        turned = [by_sine * cosine + by_cosine * sine, by_cosine * cosine - by_sine * sine]
        logits.append(jnp.concatenate(turned, axis=-1) @ places.T)
    return tuple(logits)


def place_embedding(axes: Sequence[int], embedding: Float[Array, "3 S C"]) -> Float[Array, "T H W C"]:
    """Position embeddings E s(n) of all positions n."""
    frames, rows, columns = (sinusoids(length) @ weights for length, weights in zip(axes, embedding, strict=True))
    return frames[:, None, None] + rows[:, None] + columns


def sinusoids(length: int) -> Float[Array, "length S"]:
    """Sines, then cosines, of every position along an axis."""
    angles = 2 * jnp.pi * jnp.arange(length, dtype=float)[:, None] / jnp.asarray(WAVELENGTHS)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
