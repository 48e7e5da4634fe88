"""Implementations of every operation against its definition, in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rsa_jax import ops
from rsa_jax.ops.choice import run
from rsa_jax.ops.windows import windows
from tests.tiny import FAST_COMPILATION

BOTH = pytest.mark.parametrize("implementation", ["xla", "cpu"])


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_same(function, definition, *arrays):
    """Asserts equal values, and equal gradients of a nonlinear function of them."""

    @functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILATION)
    def both(function, *arrays):
        y, pullback = jax.vjp(function, *arrays)
        return y, pullback(jnp.cos(y))

    for a, b in zip(*(jax.tree.leaves(both(f, *arrays)) for f in (function, definition)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.max(np.abs(b)))


@BOTH
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 1, 1), 2), ((1, 3, 3), 1), ((1, 3, 3), 2), ((1, 7, 7), 2), ((3, 1, 1), 1), ((3, 3, 3), 1)],
)
@pytest.mark.parametrize(("height", "width"), [(7, 6), (1, 4)])
def test_convolution(height, width, kernel, stride, implementation):
    """The definition sums products with shifted feature maps over the kernel's positions."""

    def definition(x, weights):
        y = jnp.einsum("bthwmc,mcd->bthwd", windows(x, kernel), weights.reshape(-1, *weights.shape[3:]))
        return y[:, :, ::stride, ::stride]

    convolve = functools.partial(ops.convolve, stride=stride, implementation=implementation)
    assert_same(convolve, definition, drawn(2, 3, height, width, 3), drawn(*kernel, 3, 4))


@BOTH
def test_linear(implementation):
    linear = functools.partial(ops.linear, implementation=implementation)
    assert_same(linear, lambda x, kernel: jnp.einsum("btc,cd->btd", x, kernel), drawn(2, 3, 4), drawn(4, 5))


@BOTH
def test_l2_normalize(implementation):
    normalize = functools.partial(ops.l2_normalize, implementation=implementation)

    def expected(x):
        return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)

    for shape in ((2, 3, 1, 2, 5), (2, 3, 1, 2, 4, 5)):
        assert_same(normalize, expected, drawn(*shape))


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_batch_normalisation(dtype, implementation):
    """Value, statistics and gradients for two groups; scale and bias are float32."""

    def definition(x, scale, bias):
        groups = x.reshape(2, -1, x.shape[-1])
        mean, var = jnp.mean(groups, axis=1, keepdims=True), jnp.var(groups, axis=1, keepdims=True)
        y = (groups - mean) / jnp.sqrt(var + 1e-5) * scale + bias
        return y.reshape(x.shape), mean[:, 0], var[:, 0]

    def outputs(function, *arrays):
        def loss(*arrays):
            y, mean, var = function(*arrays)
            return jnp.sum(jnp.sin(y.astype(float))), (y, lax.stop_gradient(mean), lax.stop_gradient(var))

        gradients = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
        return jax.jit(gradients, compiler_options=FAST_COMPILATION)(*arrays)

    def normalize(x, scale, bias):
        near = jnp.full(3, 2.5, jnp.float32)
        return ops.normalize_batch(x, scale, bias, near, groups=2, epsilon=1e-5, implementation=implementation)

    with jax.enable_x64():
        arrays = (3 + drawn(4, 2, 3, 5, 3)).astype(dtype), drawn(3), drawn(3, seed=1)
        actual = jax.tree.leaves(outputs(normalize, *arrays))
        expected = jax.tree.leaves(outputs(definition, *(array.astype(float) for array in arrays)))
        tolerance = {"float32": 1e-5, "float64": 1e-6, "bfloat16": 0.02}[dtype]
        assert [leaf.dtype for leaf in actual[:4]] == [dtype, "float32", "float32", dtype]
        for a, b in zip(actual, expected, strict=True):
            assert jnp.linalg.norm(a.astype(float) - b) < tolerance * jnp.linalg.norm(b)


@BOTH
def test_variance_of_a_map_far_from_zero_keeps_its_digits(implementation):
    x = 1000 + drawn(2, 2, 8, 8, 1)
    settings = {"groups": 1, "epsilon": 1e-5, "implementation": implementation}
    normalize = jax.jit(functools.partial(ops.normalize_batch, **settings), compiler_options=FAST_COMPILATION)
    _, mean, var = normalize(x, jnp.ones(1), jnp.zeros(1), jnp.full(1, 998.0))
    np.testing.assert_allclose(mean, np.mean(x, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(var, np.var(x, dtype=float), rtol=1e-4)


@BOTH
@pytest.mark.parametrize(("height", "width"), [(7, 6), (8, 5), (1, 1)])
def test_max_pool(height, width, implementation):
    def definition(x):
        moved = jnp.where(windows(jnp.ones_like(x), (1, 3, 3)) > 0, windows(x, (1, 3, 3)), -jnp.inf)
        return jnp.max(moved, axis=4)[:, :, ::2, ::2]

    assert_same(
        functools.partial(ops.max_pool, implementation=implementation), definition, drawn(2, 2, height, width, 3)
    )


@BOTH
def test_max_pool_gives_the_gradient_to_the_first_of_equal_maxima(implementation):
    x = jnp.zeros((1, 1, 4, 4, 1))
    gradient = jax.grad(lambda x: jnp.sum(ops.max_pool(x, implementation=implementation)))(x)
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(gradient[0, 0, :, :, 0], expected)


@pytest.mark.parametrize("implementation", ["conv", "xla", "cpu"])
@pytest.mark.parametrize("groups", [1, 3])
def test_window_sums(groups, implementation):
    kernel_size = (3, 1, 5)

    def definition(x, weights):
        weights = jnp.broadcast_to(weights, (15, 3, 4))
        return jnp.einsum("...mc,mce->...ce", windows(x, kernel_size), weights)

    sums = functools.partial(ops.window_sums, kernel_size=kernel_size, implementation=implementation)
    assert_same(sums, definition, drawn(2, 3, 4, 17, 3), drawn(15, groups, 4))


@BOTH
def test_products(implementation):
    products = functools.partial(ops.products, implementation=implementation)
    assert_same(products, jnp.matmul, drawn(2, 3, 4, 5), drawn(2, 3, 5, 6))


@BOTH
def test_kernels_of_every_position(implementation):
    kernel_size = (3, 1, 5)

    def definition(kernels, values):
        return jnp.einsum("mbthwg,bthwmgc->bthwgc", kernels, windows(values, kernel_size).reshape(2, 2, 3, 4, 15, 2, 3))

    def apply(kernels, values):
        values = values.reshape(2, 2, 3, 4, 2, 3)
        return ops.apply_kernels(kernels, values, kernel_size=kernel_size, implementation=implementation)

    assert_same(apply, definition, drawn(15, 2, 2, 3, 4, 2), drawn(2, 2, 3, 4, 6))


def test_the_implementation_is_that_of_the_platform_unless_it_is_named():
    def program(name, platform):
        table = {"xla": jnp.sin, "cpu": jnp.cos}
        lowered = jax.jit(lambda x: run(table, name, x)).trace(jnp.ones(3)).lower(lowering_platforms=(platform,))
        return lowered.as_text()

    for name, platform, expected in (
        (None, "cpu", "cosine"),
        (None, "tpu", "sine"),
        (None, "cuda", "sine"),
        ("reference", "cpu", "sine"),
        ("xla", "cpu", "sine"),
        ("cpu", "tpu", "cosine"),
    ):
        found = {word for word in ("cosine", "sine") if f"stablehlo.{word}" in program(name, platform)}
        assert found == {expected}, (name, platform)


def test_names_that_no_operation_has_are_refused():
    with pytest.raises(ValueError, match=r"implementation: expected None or one of \('reference', .*, got 'fast'"):
        ops.linear(drawn(2, 3), drawn(3, 4), implementation="fast")
