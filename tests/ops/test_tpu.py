"""Kernels for TPUs, interpreted: tiles of every shape, memory, and the cases left to plain JAX."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.pallas import tpu as pltpu

from rsa_jax import ops
from rsa_jax.ops.tpu import transform
from rsa_jax.ops.tpu.backward import backward
from rsa_jax.ops.tpu.forward import forward
from rsa_jax.ops.tpu.operands import Maps, make_operands, make_sizes
from rsa_jax.ops.tpu.tiles import LANES, VMEM, Sizes, Tile, choose_tile
from rsa_jax.ops.xla.frames import frames_last
from tests.ops.drawn import assert_same, draw, run


def use_tiles(monkeypatch, height, width):
    monkeypatch.setattr(transform, "choose_tile", functools.partial(Tile, height, width))


@pytest.mark.parametrize(
    ("height", "width", "dtype", "tolerance"),
    [(1, 5, "float32", 1e-5), (4, 4, "float32", 1e-5), (1, 2, "bfloat16", 0.01), (2, 3, "bfloat16", 0.01)],
)
def test_every_tile_is_the_same_function(monkeypatch, height, width, dtype, tolerance):
    """In bfloat16, rows share registers if the tile height is even."""
    use_tiles(monkeypatch, height, width)
    kernel_size = (3, 3, 5)
    arguments = draw(0, (3, 2, 5, 5, 2, 6), kernel_size, 3)
    expected = run("reference", arguments, kernel_size)
    low = jax.tree.map(lambda x: x.astype(dtype), arguments)
    assert_same(run("tpu", low, kernel_size), expected, tolerance)


def test_no_memory_is_read_before_it_is_written():
    """The interpreter models a TPU's memories, initially NaN. There are two blocks of lanes, each half empty."""
    *maps, weights = draw(0, (2, 70, 2, 2, 1, 3), (3, 3, 1), 2)
    tile = Tile(1, 2, make_sizes(maps[0], weights, (3, 3, 1)))
    operands = make_operands(Maps(*map(frames_last, maps)), weights, tile)
    memories = pltpu.InterpretParams(uninitialized_memory="nan")
    y = forward(operands, tile=tile, interpret=True)
    assert_same(forward(operands, tile=tile, interpret=memories), y, 1e-6)
    gradients = [backward(operands, y, tile=tile, interpret=how) for how in (memories, True)]
    assert_same(*gradients, 1e-6)


def kernels(arguments, kernel_size):
    function = functools.partial(ops.rsa, kernel_size=kernel_size, implementation="tpu")
    return str(jax.make_jaxpr(function)(*arguments)).count("name=rsa_forward")


def test_what_is_left_to_plain_jax():
    decomposed = draw(0, (1, 2, 2, 2, 1, 2), (3, 1, 1), 2)
    assert kernels(decomposed, (3, 1, 1))
    *maps, weights = draw(0, (1, 2, 2, 2, 1, 2), (3, 1, 1), 3)
    assert not kernels((*maps, weights._replace(H2=None)), (3, 1, 1))
    many_frames = draw(0, (1, LANES + 1, 1, 1, 1, 2), (3, 1, 1), 2)
    assert not kernels(many_frames, (3, 1, 1))
    half = jax.tree.map(lambda x: x.astype(jnp.float16), decomposed)
    assert not kernels(half, (3, 1, 1))


@pytest.mark.parametrize(
    ("platform", "kind", "name"),
    [
        ("tpu", "TPU v5 lite", "tpu"),
        ("tpu", "TPU v6 lite", "tpu"),
        ("tpu", "TPU v4", "xla"),
        ("gpu", "NVIDIA H100", "xla"),
        ("cpu", "cpu", "cpu"),
    ],
)
def test_what_suits_a_device(platform, kind, name):
    assert ops.preferred(types.SimpleNamespace(platform=platform, device_kind=kind)) == name


PUBLISHED = [(56, 8), (28, 16), (14, 32), (7, 64)]


def published(side, channels):
    return Sizes(16, side, side, (5, 7, 7), 8, channels, channels, relation=True, context=True, itemsize=2)


@pytest.mark.parametrize(("side", "channels"), PUBLISHED)
def test_tiles_of_the_published_network_fit_and_fill_a_matrix_unit(side, channels):
    tile = choose_tile(published(side, channels))
    assert tile.vmem() <= VMEM
    assert tile.pixels * channels == LANES
    assert tile.across * tile.width >= side
    assert tile.down * tile.height >= side


def test_no_tile_where_the_weights_alone_exceed_the_chip():
    assert choose_tile(published(7, 512)) is None


def test_the_cost_grows_with_map_channels_and_window():
    sizes = published(14, 32)
    cost = choose_tile(sizes).cycles(gradients=True)
    for larger in ({"height": 28}, {"channels": 64}, {"latent": 64}, {"queries": 16}, {"kernel_size": (5, 11, 11)}):
        assert choose_tile(dataclasses.replace(sizes, **larger)).cycles(gradients=True) > cost
    assert choose_tile(sizes).cycles(gradients=False) < cost
