"""Transforms with random arguments, and their outputs and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rsa_jax import ops
from rsa_jax.ops.equations import RSAWeights
from tests.tiny import FAST_COMPILATION


def draw(seed, shape, kernel_size, latent, kernel="V+R", context="V+R", dtype="float32"):
    """Random query, key, value and weights of a transform."""
    rng = np.random.default_rng(seed)
    *others, _, channels = shape
    positions = int(np.prod(kernel_size))

    def array(*sizes, scale=1.0):
        return jnp.asarray(scale * rng.standard_normal(sizes), dtype)

    small = functools.partial(array, scale=0.2)
    latent = channels if kernel == "V" else latent
    weights = RSAWeights(
        small(positions, latent),
        None if kernel == "V" else small(positions, channels, latent),
        small(channels, latent) if kernel == "V+R" else None,
        None if context == "V" else small(positions, channels),
        jnp.eye(channels, dtype=dtype) + small(channels, channels) if context == "V+R" else None,
    )
    return (array(*shape), array(*others, channels), array(*others, channels), weights)


def run(implementation, arguments, kernel_size):
    """y, and the gradients of a weighted sum of its entries."""

    @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
    def both(*arguments):
        function = functools.partial(ops.rsa, kernel_size=kernel_size, implementation=implementation)
        y, pullback = jax.vjp(function, *arguments)
        return y, pullback(jnp.sin(jnp.arange(1.0, y.size + 1) ** 2).reshape(y.shape).astype(y.dtype))

    return both(*arguments)


def assert_same(actual, expected, tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def random_case(seed):
    rng = np.random.default_rng(seed)
    batch, frames, height, width, queries = rng.integers(1, [4, 6, 6, 7, 4])
    kernel_size = tuple(int(size) for size in rng.choice([1, 3, 5, 7], 3, p=[0.3, 0.4, 0.2, 0.1]))
    kernel, context = rng.choice(["V", "R", "V+R"], 2, p=[0.2, 0.3, 0.5])
    channels, latent = rng.integers(1, 12, 2)
    return (batch, frames, height, width, queries, channels), kernel_size, int(latent), kernel, context
