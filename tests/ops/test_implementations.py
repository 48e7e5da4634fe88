"""Every implementation of the transform computes the same function and gradients as Eq. 11 on explicit windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsa_jax.nn import RSA
from rsa_jax.ops.equations import relational_kernel, relational_kernel_explicit
from rsa_jax.ops.windows import windows
from tests.tiny import FAST_COMPILATION

PARTS = ("V", "R", "V+R")


def outputs_and_gradients(implementation, shape, dtype="float32", **settings):
    """y, and the gradients of a weighted sum of y with respect to input and parameters."""
    layer = RSA(shape[-1], implementation=implementation, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(1), **settings)
    graph, params = nnx.split(layer)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.promote_types(dtype, jnp.float32))

    @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
    def run(params, x):
        y, pullback = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
        return y, *pullback(jnp.sin(100 * x).astype(y.dtype))

    return run(params, x)


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * np.max(np.abs(b)))


@pytest.mark.parametrize("context", PARTS)
@pytest.mark.parametrize("kernel", PARTS)
def test_grouped_convolutions_agree_on_every_setting(kernel, context):
    """The other implementations are compared with loops in nn/test_equations.py."""
    settings = {"num_queries": 2, "kernel_size": (3, 3, 5), "kernel": kernel, "context": context}
    expected = outputs_and_gradients("reference", (2, 3, 4, 5, 6), **settings)
    assert_same(outputs_and_gradients("conv", (2, 3, 4, 5, 6), **settings), expected)


AWKWARD = {
    "window larger than the map": ((1, 2, 3, 2, 8), {"kernel_size": (5, 7, 7)}),
    "one frame, one query, latent dimension": ((2, 1, 5, 3, 4), {"num_queries": 1, "latent_dim": 3}),
    "one pixel": ((2, 3, 1, 1, 8), {"kernel_size": (3, 3, 3)}),
    "wide row in several blocks": ((1, 1, 2, 19, 4), {"kernel_size": (1, 3, 5)}),
    "several blocks in time and width": ((1, 19, 1, 21, 4), {"kernel_size": (3, 1, 5)}),
    "window of one": ((1, 2, 3, 4, 8), {"kernel_size": (1, 1, 1)}),
    "not normalised": ((1, 2, 3, 4, 8), {"kernel_size": (3, 3, 3), "normalization": "none"}),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_grouped_convolutions_agree_on_awkward_sizes(case):
    """The other implementations are compared in float64 below."""
    shape, settings = AWKWARD[case]
    settings = {"num_queries": 2, "kernel_size": (3, 5, 3), **settings}
    expected = outputs_and_gradients("reference", shape, **settings)
    assert_same(outputs_and_gradients("conv", shape, **settings), expected)


@pytest.mark.parametrize("settings", [{"relation_groups": 1}, {"relation_groups": 2}, {"decomposed": False}])
def test_grouped_convolutions_agree_on_variants(settings):
    """The other implementations are compared with loops in nn/test_equations.py."""
    settings = {"num_queries": 2, "kernel_size": (3, 3, 1), **settings}
    expected = outputs_and_gradients("reference", (1, 2, 3, 2, 8), **settings)
    assert_same(outputs_and_gradients("conv", (1, 2, 3, 2, 8), **settings), expected)


def errors(actual, expected):
    """Relative error of every array, in the Euclidean norm."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    arrays = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    return np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in arrays])


@pytest.mark.parametrize("case", AWKWARD)
def test_float64_and_bfloat16(case):
    """In bfloat16, the error may be up to twice that of the reference in bfloat16."""
    shape, settings = AWKWARD[case]
    settings = {"num_queries": 2, "kernel_size": (3, 5, 3), **settings}
    with jax.enable_x64():
        expected = outputs_and_gradients("reference", shape, "float64", **settings)
        reference = errors(outputs_and_gradients("reference", shape, "bfloat16", **settings), expected)
        for implementation in ("xla", "cpu"):
            assert max(errors(outputs_and_gradients(implementation, shape, "float64", **settings), expected)) < 1e-12
            low = errors(outputs_and_gradients(implementation, shape, "bfloat16", **settings), expected)
            assert np.all(low < 2 * reference + 0.01), implementation


def test_windows_are_zero_outside_of_the_map():
    x = jnp.arange(1.0, 7.0).reshape(1, 1, 2, 3, 1)
    window = windows(x, (3, 3, 3))[0, 0, 0, 0, :, 0].reshape(3, 3, 3)
    expected = np.zeros((3, 3, 3))
    expected[1, 1:, 1:] = [[1, 2], [4, 5]]
    np.testing.assert_array_equal(window, expected)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_switched_order_is_the_same_kernel(groups):
    """Eq. 10 against Eq. 9."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, 4, 6)), rng.standard_normal((2, 9, 6))
    h1, h2 = rng.standard_normal((9, groups, 5)), rng.standard_normal((9, 5))
    expected = relational_kernel_explicit(query, key, h1, h2)
    np.testing.assert_allclose(relational_kernel(query, key, h1, h2), expected, rtol=1e-4, atol=1e-4)
