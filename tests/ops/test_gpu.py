"""Kernels for GPUs, interpreted: blocks of every shape, dtypes, and the cases left to plain JAX."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from rsa_jax import ops
from rsa_jax.ops.gpu.positions import WRITTEN_OUT
from rsa_jax.ops.gpu.sizes import FACTOR, LARGEST, MOST_NUMBERS, Sizes
from tests.ops.drawn import assert_same, draw, run


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01), ("float16", 0.001)])
def test_types(dtype, tolerance):
    """Several blocks of frames, the last with padding, and a window in several parts."""
    kernel_size = (5, 9, 9)
    arguments = draw(0, (3, 13, 1, 3, 3, 20), kernel_size, 18)
    sizes = Sizes(3, 13, 1, 3, kernel_size, 3, 20, 18, context=True, itemsize=2)
    assert sizes.blocks > 1
    assert sizes.all_frames > 39
    assert sizes.parts > WRITTEN_OUT
    low = jax.tree.map(lambda x: x.astype(dtype), arguments)
    assert_same(run("gpu", low, kernel_size), run("reference", arguments, kernel_size), tolerance)


def kernels(arguments, kernel_size):
    function = functools.partial(ops.rsa, kernel_size=kernel_size, implementation="gpu")
    return str(jax.make_jaxpr(function)(*arguments)).count("name=rsa_forward")


def test_what_is_left_to_plain_jax():
    decomposed = draw(0, (1, 2, 2, 2, 1, 2), (3, 1, 1), 2)
    assert kernels(decomposed, (3, 1, 1))
    *maps, weights = draw(0, (1, 2, 2, 2, 1, 2), (3, 1, 1), 3)
    assert not kernels((*maps, weights._replace(H2=None)), (3, 1, 1))
    assert not kernels((maps[0].astype(jnp.bfloat16), *maps[1:], weights), (3, 1, 1))
    with jax.enable_x64(True):
        assert not kernels(jax.tree.map(lambda x: x.astype("float64"), decomposed), (3, 1, 1))
    many_channels = draw(0, (1, 2, 1, 1, 16, 256), (3, 1, 1), 2)
    assert not kernels(many_channels, (3, 1, 1))


def test_weights_that_nothing_uses_have_no_gradient():
    """I is unused without a relational context, P1 without a relational kernel."""
    *maps, weights = draw(0, (1, 2, 2, 2, 1, 3), (3, 1, 1), 3)
    for unused in (weights._replace(G=None), weights._replace(H1=None)):
        arguments = (*maps, unused)
        actual, expected = (run(name, arguments, (3, 1, 1))[1] for name in ("gpu", "xla"))
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            assert jnp.allclose(a, b, atol=1e-5)


def test_a_basic_kernel_of_other_channels_is_refused():
    *maps, weights = draw(0, (1, 2, 2, 2, 1, 3), (3, 1, 1), 3, kernel="V")
    with pytest.raises(TypeError):
        run("gpu", (*maps, weights._replace(H2=weights.H2[:, :2])), (3, 1, 1))


def sizes(clips, frames, side, channels):
    return Sizes(clips, frames, side, side, (5, 7, 7), 8, channels, channels, context=True, itemsize=2)


@pytest.mark.parametrize(("side", "channels"), [(56, 8), (28, 16), (14, 32), (7, 64)])
def test_blocks_of_the_published_network(side, channels):
    layer = sizes(8, 16, side, channels)
    assert layer.fit()
    assert layer.all_frames == 128
    assert layer.parts * layer.entries - layer.entries < layer.window <= layer.parts * layer.entries
    assert layer.rows * layer.entries * layer.itemsize <= FACTOR
    assert layer.query_block * layer.rows * layer.frame_block <= MOST_NUMBERS


def test_arrays_beyond_an_index_do_not_fit():
    clips = LARGEST // (16 * 56 * 56 * 8 * (8 + 8))
    assert sizes(clips - 1, 16, 56, 8).fit()
    assert not sizes(clips + 1, 16, 56, 8).fit()


def test_devices_that_share_a_batch_count_each_its_own_clips(monkeypatch):
    monkeypatch.setattr("rsa_jax.ops.gpu.sizes.LARGEST", 2048)
    arguments = draw(0, (4, 32, 2, 2, 1, 2), (1, 1, 1), 2)
    assert not kernels(arguments, (1, 1, 1))
    mesh = jax.sharding.AbstractMesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh):
        assert kernels(arguments, (1, 1, 1))


def test_only_who_asks_for_them_needs_triton():
    code = """
import sys
sys.modules["jax.experimental.pallas.triton"] = None
import jax.numpy as jnp
from rsa_jax import ops
from rsa_jax.ops.equations import RSAWeights

x = jnp.ones((1, 1, 1, 1, 1))
arguments = x[..., None], x, x, RSAWeights(jnp.ones((1, 1)))
assert ops.rsa(*arguments, kernel_size=(1, 1, 1)) == 1
try:
    ops.rsa(*arguments, kernel_size=(1, 1, 1), implementation="gpu")
except ImportError as error:
    assert 'use implementation "xla"' in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
