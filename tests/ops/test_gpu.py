"""Kernels for GPUs, interpreted: blocks of every form, types, and what they leave to plain JAX."""

import functools

import jax
import jax.numpy as jnp
import pytest

from rsa_jax import ops
from rsa_jax.ops.gpu.sizes import ENTRIES, LARGEST, MOST_NUMBERS, Sizes
from tests.ops.drawn import assert_same, draw, run


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01), ("float16", 0.001)], ids=lambda value: str(value)
)
def test_types(dtype, tolerance):
    """Of several blocks of frames, the last of them in part, and a window in several parts."""
    kernel_size = (3, 7, 7)
    arguments = draw(0, (3, 13, 2, 5, 3, 20), kernel_size, 18)
    sizes = Sizes(3, 13, 2, 5, kernel_size, 3, 20, 18, context=True)
    assert sizes.blocks > 1
    assert sizes.all_frames > 39
    assert len(sizes.entries) > 1
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


@pytest.mark.parametrize(("side", "channels"), [(56, 8), (28, 16), (14, 32), (7, 64)])
def test_blocks_of_the_published_network(side, channels):
    sizes = Sizes(8, 16, side, side, (5, 7, 7), 8, channels, channels, context=True)
    assert sizes.fit()
    assert sizes.all_frames == 128
    assert sum(sizes.entries) - ENTRIES < sizes.window <= sum(sizes.entries)
    assert sizes.query_block * sizes.channel_block * sizes.frame_block <= MOST_NUMBERS


def test_arrays_beyond_an_index_do_not_fit():
    clips = LARGEST // (16 * 56 * 56 * 8 * (8 + 8))
    assert Sizes(clips - 1, 16, 56, 56, (5, 7, 7), 8, 8, 8, context=True).fit()
    assert not Sizes(clips + 1, 16, 56, 56, (5, 7, 7), 8, 8, 8, context=True).fit()
