"""Every form computes the same function and the same gradients as Eq. 11 on explicit windows."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsa_jax.transforms import RSA
from rsa_jax.transforms.equations import relational_kernel, relational_kernel_explicit
from rsa_jax.transforms.forms import FORMS
from rsa_jax.transforms.windows import choose_blocks, correlate_banded, correlate_conv, windows
from tests.tiny import FAST_COMPILATION

PARTS = ("V", "R", "V+R")
FAST_FORMS = sorted(set(FORMS) - {"reference"})


def outputs_and_gradients(form, shape, dtype="float32", **settings):
    """y, and the gradients of a weighted sum of y with respect to input and parameters."""
    layer = RSA(shape[-1], form=form, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(1), **settings)
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


@pytest.mark.parametrize("form", FAST_FORMS)
@pytest.mark.parametrize("context", PARTS)
@pytest.mark.parametrize("kernel", PARTS)
def test_forms_agree_on_every_setting(kernel, context, form):
    settings = {"num_queries": 2, "kernel_size": (3, 3, 5), "kernel": kernel, "context": context}
    expected = outputs_and_gradients("reference", (2, 3, 4, 5, 6), **settings)
    assert_same(outputs_and_gradients(form, (2, 3, 4, 5, 6), **settings), expected)


AWKWARD = {
    "window larger than the map": ((1, 2, 3, 2, 8), {"kernel_size": (5, 7, 7)}),
    "one frame, one query, latent dimension": ((2, 1, 5, 3, 4), {"num_queries": 1, "latent_dim": 3}),
    "one pixel": ((2, 3, 1, 1, 8), {"kernel_size": (3, 3, 3)}),
    "wide row in several blocks": ((1, 1, 2, 19, 4), {"kernel_size": (1, 3, 5)}),
    "several blocks in time and width": ((1, 19, 1, 21, 4), {"kernel_size": (3, 1, 5)}),
    "window of one": ((1, 2, 3, 4, 8), {"kernel_size": (1, 1, 1)}),
    "not normalised": ((1, 2, 3, 4, 8), {"kernel_size": (3, 3, 3), "normalization": "none"}),
}


@pytest.mark.parametrize("form", FAST_FORMS)
@pytest.mark.parametrize("case", AWKWARD)
def test_forms_agree_on_awkward_sizes(case, form):
    shape, settings = AWKWARD[case]
    settings = {"num_queries": 2, "kernel_size": (3, 5, 3), **settings}
    assert_same(outputs_and_gradients(form, shape, **settings), outputs_and_gradients("reference", shape, **settings))


@pytest.mark.parametrize("settings", [{"relation_groups": 1}, {"relation_groups": 2}, {"decomposed": False}])
def test_forms_agree_on_variants(settings):
    """The banded form is compared with loops: see test_equations.py."""
    settings = {"num_queries": 2, "kernel_size": (3, 3, 1), **settings}
    expected = outputs_and_gradients("reference", (1, 2, 3, 2, 8), **settings)
    assert_same(outputs_and_gradients("conv", (1, 2, 3, 2, 8), **settings), expected)


def errors(actual, expected):
    """Of every array: the norm of the difference, relative to that of the expected one."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    arrays = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    return np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in arrays])


@pytest.mark.parametrize("case", AWKWARD)
def test_banded_form_in_float64_and_bfloat16(case):
    """In bfloat16 it may err up to twice as much as the reference does there."""
    shape, settings = AWKWARD[case]
    settings = {"num_queries": 2, "kernel_size": (3, 5, 3), **settings}
    with jax.enable_x64():
        expected = outputs_and_gradients("reference", shape, "float64", **settings)
        assert max(errors(outputs_and_gradients("banded", shape, "float64", **settings), expected)) < 1e-12
        low = {form: outputs_and_gradients(form, shape, "bfloat16", **settings) for form in ("reference", "banded")}
    assert np.all(errors(low["banded"], expected) < 2 * errors(low["reference"], expected) + 0.01)


def test_a_large_batch_is_computed_in_parts(monkeypatch):
    expected = outputs_and_gradients("reference", (6, 2, 4, 5, 4), num_queries=2, kernel_size=(3, 3, 3))
    split = []
    monkeypatch.setattr("rsa_jax.transforms.windows._parts", lambda *_: split.append(3) or 3)
    assert_same(outputs_and_gradients("banded", (6, 2, 4, 5, 4), num_queries=2, kernel_size=(3, 3, 3)), expected)
    assert split


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("correlate", [correlate_conv, correlate_banded])
def test_correlations_are_sums_over_windows(correlate, groups):
    rng = np.random.default_rng(0)
    x, kernel_size = rng.standard_normal((2, 3, 4, 17, 3)).astype(np.float32), (3, 1, 5)
    weights = rng.standard_normal((15, groups, 4)).astype(np.float32)
    expected = np.einsum("...mc,mce->...ce", windows(jnp.asarray(x), kernel_size), np.broadcast_to(weights, (15, 3, 4)))
    np.testing.assert_allclose(correlate(jnp.asarray(x), weights, kernel_size), expected, atol=1e-5)


def test_blocks_cover_the_axis_and_matter_to_the_cost_alone(monkeypatch):
    rng, kernel_size = np.random.default_rng(0), (3, 1, 5)
    x = jnp.asarray(rng.standard_normal((2, 7, 2, 11, 2)), jnp.float32)
    weights = jnp.asarray(rng.standard_normal((15, 2, 3)), jnp.float32)
    chosen = set()
    for write in (0, 4, 1e9):  # what a write costs: from small blocks to large ones
        monkeypatch.setattr("rsa_jax.transforms.windows.WRITE", write)
        blocks = choose_blocks(x.shape, weights.shape, kernel_size)
        assert all(axis.blocks * axis.block >= axis.length > (axis.blocks - 1) * axis.block for axis in blocks)
        chosen.add(tuple(axis.block for axis in blocks))
        np.testing.assert_allclose(
            correlate_banded(x, weights, kernel_size), correlate_conv(x, weights, kernel_size), atol=1e-4
        )
    assert len(chosen) == 3


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


def test_devices_that_share_a_batch_exchange_sums_alone():
    """No clip goes from one of the four to another."""
    code = """
import jax, re
import jax.numpy as jnp
from rsa_jax.transforms import windows
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
windows._parts = lambda *args: 2
x = jax.ShapeDtypeStruct((8, 4, 6, 6, 2), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P("data")))
w = jax.ShapeDtypeStruct((27, 2, 3), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))
y = jax.ShapeDtypeStruct((8, 4, 6, 6, 2, 3), jnp.float32, sharding=x.sharding)
correlate = lambda x, w: windows.correlate_banded(x, w, (3, 3, 3))
program = jax.jit(lambda x, w, y: jax.vjp(correlate, x, w)[1](y)).lower(x, w, y).compile().as_text()
print(set(re.findall(r" (all-[a-z-]+|collective-[a-z-]+)[(]", program)))
program = jax.jit(correlate).lower(x, w).compile().as_text()
print(set(re.findall(r" (all-[a-z-]+|collective-[a-z-]+)[(]", program)))
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.split("\n") == ["{'all-reduce'}", "set()", ""]
