"""Kernels for TPUs, interpreted: tiles of every form against Eq. 11, and what they leave to plain JAX."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from rsa_jax import ops
from rsa_jax.ops.equations import RSAWeights
from rsa_jax.ops.tpu import transform
from rsa_jax.ops.tpu.backward import backward
from rsa_jax.ops.tpu.forward import forward
from rsa_jax.ops.tpu.operands import Maps, make_operands, make_sizes
from rsa_jax.ops.tpu.tiles import LANES, VMEM, Sizes, Tile, choose_tile
from rsa_jax.ops.xla.frames import frames_last
from tests.tiny import FAST_COMPILATION


def draw(seed, shape, kernel_size, latent, kernel="V+R", context="V+R", dtype="float32"):
    """Query, key, value and weights of a transform."""
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
    """y, and the gradients of a weighted sum of it."""

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


def use_tiles(monkeypatch, height, width):
    monkeypatch.setattr(transform, "choose_tile", functools.partial(Tile, height, width))


@pytest.mark.parametrize(
    ("height", "width", "dtype", "tolerance"),
    [(1, 5, "float32", 1e-5), (4, 4, "float32", 1e-5), (1, 2, "bfloat16", 0.01), (2, 3, "bfloat16", 0.01)],
)
def test_every_tile_is_the_same_function(monkeypatch, height, width, dtype, tolerance):
    """In bfloat16, rows share registers where tiles are of even height."""
    use_tiles(monkeypatch, height, width)
    kernel_size = (3, 3, 5)
    arguments = draw(0, (3, 2, 5, 5, 2, 6), kernel_size, 3)
    expected = run("reference", arguments, kernel_size)
    low = jax.tree.map(lambda x: x.astype(dtype), arguments)
    assert_same(run("tpu", low, kernel_size), expected, tolerance)


def test_no_memory_is_read_before_it_is_written():
    """By an interpreter with a TPU's memories, in which NaN lies at first. Two blocks of lanes, each half empty."""
    *maps, weights = draw(0, (2, 70, 2, 2, 1, 3), (3, 3, 1), 2)
    tile = Tile(1, 2, make_sizes(maps[0], weights, (3, 3, 1)))
    operands = make_operands(Maps(*map(frames_last, maps)), weights, tile)
    memories = pltpu.InterpretParams(uninitialized_memory="nan")
    y = forward(operands, tile=tile, interpret=True)
    assert_same(forward(operands, tile=tile, interpret=memories), y, 1e-6)
    gradients = [backward(operands, y, tile=tile, interpret=how) for how in (memories, True)]
    assert_same(*gradients, 1e-6)


def random_case(seed):
    rng = np.random.default_rng(seed)
    batch, frames, height, width, queries = rng.integers(1, [4, 6, 6, 7, 4])
    kernel_size = tuple(int(size) for size in rng.choice([1, 3, 5, 7], 3, p=[0.3, 0.4, 0.2, 0.1]))
    kernel, context = rng.choice(["V", "R", "V+R"], 2, p=[0.2, 0.3, 0.5])
    channels, latent = rng.integers(1, 12, 2)
    return (batch, frames, height, width, queries, channels), kernel_size, int(latent), kernel, context


@pytest.mark.parametrize("seed", range(6))
def test_drawn_sizes_and_settings(seed):
    shape, kernel_size, latent, kernel, context = random_case(seed)
    arguments = draw(seed, shape, kernel_size, latent, kernel, context)
    assert_same(run("tpu", arguments, kernel_size), run("reference", arguments, kernel_size), 1e-5)


@pytest.mark.parametrize(("batch", "frames"), [(3, 48), (2, 70), (1, 128), (130, 1)])
def test_windows_do_not_reach_into_other_clips(batch, frames):
    """Two clips of 48 frames share 128 lanes, with some to spare; the third has lanes of its own."""
    kernel_size = (5, 1, 1)
    arguments = draw(1, (batch, frames, 1, 1, 1, 2), kernel_size, 2)
    assert_same(run("tpu", arguments, kernel_size), run("reference", arguments, kernel_size), 1e-5)


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


CODE = """
import functools, json, re
import jax
import numpy as np
from rsa_jax import ops
from tests.ops.test_tpu import FAST_COMPILATION, draw

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
whole, parts = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))
*maps, weights = draw(0, (8, 2, 2, 3, 2, 3), (3, 3, 1), 2)
transform = functools.partial(ops.rsa, kernel_size=(3, 3, 1), implementation="tpu")

def gradients(maps, weights):
    return jax.grad(lambda maps, weights: (transform(*maps, weights) ** 2).sum(), argnums=(0, 1))(maps, weights)

def compiled(function, shardings):
    jitted = jax.jit(function, in_shardings=(parts, whole), out_shardings=shardings)
    return jitted.lower(maps, weights).compile(compiler_options=FAST_COMPILATION)

expected = jax.jit(gradients, compiler_options=FAST_COMPILATION)(maps, weights)
with jax.set_mesh(mesh):
    forward = compiled(lambda maps, weights: transform(*maps, weights), parts)
    both = compiled(gradients, (parts, whole))
    actual = both(jax.device_put(maps, parts), jax.device_put(weights, whole))
errors = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(b))), actual, expected)
pattern = r" (all-\\w[\\w-]*|collective-[\\w-]+|reduce-scatter)\\("
exchanges = [sorted(set(re.findall(pattern, program.as_text()))) for program in (forward, both)]

def lowered_for_a_tpu(axes, clips):
    *maps, weights = draw(0, (clips, 2, 2, 3, 2, 3), (3, 3, 1), 2)
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(jax.sharding.AxisType.Auto,) * len(axes))
    with jax.set_mesh(mesh):
        text = jax.jit(gradients).trace(maps, weights).lower(lowering_platforms=("tpu",)).as_text()
    return text.count("tpu_custom_call")

cases = ({"data": 8}, 3), ({"data": 2, "model": 4}, 4), ({"model": 8}, 4)
kernels = [lowered_for_a_tpu(*case) for case in cases]
print(json.dumps([kernels, max(jax.tree.leaves(errors)), *exchanges]))
"""


def test_eight_devices_only_add_up_gradients_of_weights():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    output = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    kernels, error, forward, both = json.loads(output.stdout)
    assert kernels == [2, 2, 2]
    assert error < 1e-5
    assert forward == []
    assert both == ["all-reduce"]
