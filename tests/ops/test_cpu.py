"""The CPU implementations' optimisations change no value."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsa_jax import ops
from rsa_jax.ops import cpu, xla
from rsa_jax.ops.cpu.window_sums import choose_blocks
from tests.tiny import FAST_COMPILATION


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def value_and_gradients(function, *arrays):
    @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
    def run(*arrays):
        y, pullback = jax.vjp(function, *arrays)
        return y, pullback(jnp.cos(y))

    return jax.tree.leaves(run(*arrays))


def test_blocks_cover_the_axis_and_matter_to_the_cost_alone():
    x, weights, kernel_size = drawn(2, 7, 2, 11, 2), drawn(15, 2, 3), (3, 1, 5)
    expected = ops.window_sums(x, weights, kernel_size=kernel_size, implementation="conv")
    chosen = set()
    for write in (0, 4, 1e9):  # cost of a write: from small blocks to large ones
        axes = choose_blocks(x.shape, weights.shape, kernel_size, write)
        assert all(axis.blocks * axis.block >= axis.length > (axis.blocks - 1) * axis.block for axis in axes)
        chosen.add(tuple(axis.block for axis in axes))
        sums = functools.partial(cpu.window_sums, kernel_size=kernel_size, axes=axes)
        np.testing.assert_allclose(jax.jit(sums, compiler_options=FAST_COMPILATION)(x, weights), expected, atol=1e-4)
    assert len(chosen) == 3


def test_a_large_batch_is_computed_in_parts():
    x, weights = drawn(6, 2, 4, 5, 2), drawn(27, 2, 3)
    sums = functools.partial(cpu.window_sums, kernel_size=(3, 3, 3))
    whole, parts = (value_and_gradients(functools.partial(sums, parts=parts), x, weights) for parts in (1, 3))
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "kernel_size", "softmax"),
    [((1, 7, 3, 7, 1, 2), (3, 3, 3), True), ((1, 1, 3, 7, 1, 2), (1, 3, 3), False), ((1, 1, 3, 3, 1, 2), (), True)],
)
def test_attention_for_some_positions_at_a_time(shape, kernel_size, softmax):
    """Blocks in time and width, and a smaller last chunk."""
    arrays = [drawn(*shape, seed=seed) for seed in range(3)]
    attend = functools.partial(xla.attend, softmax=softmax)
    positions = drawn(3, 16, 1, 2, seed=3)
    if kernel_size:
        attend = functools.partial(xla.attend_in_window, softmax=softmax, kernel_size=kernel_size)
        positions = drawn(int(np.prod(kernel_size)), 1, 2, seed=3)
    at_once = np.prod(shape[:3]) * 50 if kernel_size else 2 * np.prod(shape[:4])
    some, whole = (
        value_and_gradients(functools.partial(attend, logits_at_once=int(number)), *arrays, positions)
        for number in (at_once, 2**26)
    )
    for a, b in zip(some, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_devices_that_share_a_batch_exchange_sums_alone():
    """No clip moves between the four devices."""
    code = """
import functools, jax, re
import jax.numpy as jnp
from rsa_jax.ops import cpu
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
x = jax.ShapeDtypeStruct((8, 4, 6, 6, 2), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P("data")))
w = jax.ShapeDtypeStruct((27, 2, 3), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))
y = jax.ShapeDtypeStruct((8, 4, 6, 6, 2, 3), jnp.float32, sharding=x.sharding)
sums = functools.partial(cpu.window_sums, kernel_size=(3, 3, 3), parts=2)
program = jax.jit(lambda x, w, y: jax.vjp(sums, x, w)[1](y)).lower(x, w, y).compile().as_text()
print(set(re.findall(r" (all-[a-z-]+|collective-[a-z-]+)[(]", program)))
program = jax.jit(sums).lower(x, w).compile().as_text()
print(set(re.findall(r" (all-[a-z-]+|collective-[a-z-]+)[(]", program)))
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.split("\n") == ["{'all-reduce'}", "set()", ""]
