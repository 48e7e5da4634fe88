"""Pooling."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def max_pool(x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w C"]:
    """1 x 3 x 3 max pooling with stride 2, padded by 1 on both sides."""
    images = x.reshape(-1, *x.shape[2:])
    around = [(0, 0), (1, 1), (1, 1), (0, 0)]
    y = lax.reduce_window(images, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)
    return y.reshape(*x.shape[:2], *y.shape[1:])
