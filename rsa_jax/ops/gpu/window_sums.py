"""Gradients of window sums, Σ_m x[n + m, c] weights[m, c, e]: of the weights, and of the feature map."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from rsa_jax.ops.gpu.positions import moved, numbered_block, store
from rsa_jax.ops.gpu.sizes import FACTOR, NUMBERS, SMALLEST, WARPS, Sizes, block, divide, product

# Number of programs that share the sums over all positions: a few for each multiprocessor of the largest cards.
PROGRAMS = 512
# Side, in pixels, of the tile for which a program computes gradients of a feature map. A tile has as many pixels as a
# product has rows.
TILE = 4
# Maximum number of frames for which it computes them.
MOST_FRAMES = 128


def weights_grad(
    x: Float[Array, "B T H W C"], sums_grad: Float[Array, " N"], *, outputs: int, sizes: Sizes, interpret: bool
) -> Float[Array, "M C E"]:
    """Gradient of each channel's weights, in float32.

    Args:
        x: the feature map.
        sums_grad: gradient of the window sums, `H W C E F` as a flat array.
        outputs: E.
        sizes: sizes of the transform.
        interpret: True if the device is not a GPU.
    """
    total = sizes.pixels * sizes.blocks
    steps = pl.cdiv(total, pl.cdiv(PROGRAMS, sizes.channels * sizes.parts))
    entries, columns = sizes.entries, block(outputs)
    grid = pl.cdiv(total, steps), sizes.channels, sizes.parts
    partial_sums = pl.pallas_call(
        functools.partial(_weights_kernel, outputs=outputs, steps=steps, sizes=sizes),
        out_shape=jax.ShapeDtypeStruct((*grid, entries, columns), jnp.float32),
        grid=grid,
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * 2,
        out_specs=pl.BlockSpec((None, None, None, entries, columns), lambda *program: (*program, 0, 0)),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="rsa_weights_grad",
    )(moved(x, sizes), sums_grad)
    grad = jnp.sum(partial_sums, axis=0).reshape(sizes.channels, -1, columns)
    return grad[:, : sizes.window, :outputs].swapaxes(0, 1)


def _weights_kernel(x_ref: Any, grad_ref: Any, out_ref: Any, *, outputs: int, steps: int, sizes: Sizes) -> None:
    first, channel, part = pl.program_id(0) * steps, pl.program_id(1), pl.program_id(2)
    row = jnp.arange(block(outputs))[:, None]

    def add(i: Array, total: Float[Array, "m E"]) -> Float[Array, "m E"]:
        within = first + i < sizes.pixels * sizes.blocks
        at = numbered_block(jnp.where(within, first + i, 0), sizes)
        index = ((at.pixel * sizes.channels + channel) * outputs + row) * sizes.all_frames + at.place
        grad = plgpu.load(grad_ref.at[index], mask=jnp.broadcast_to((row < outputs) & within, index.shape), other=0)
        return total + product(at.windows(x_ref, channel, part), grad.T)

    out_ref[...] = lax.fori_loop(0, steps, add, jnp.zeros(out_ref.shape, jnp.float32))


def map_grad(
    weights: Float[Array, " M #C E"], sums_grad: Float[Array, " N"], *, sizes: Sizes, interpret: bool
) -> Float[Array, "B T H W C"]:
    """Gradient of the feature map. The arguments are those of `weights_grad`."""
    moves, outputs = sizes.kernel_size[0], weights.shape[-1]
    down, across = pl.cdiv(sizes.height, TILE), pl.cdiv(sizes.width, TILE)
    grad = pl.pallas_call(
        functools.partial(_map_kernel, outputs=outputs, shared=weights.shape[1] == 1, sizes=sizes),
        out_shape=jax.ShapeDtypeStruct((moves * sizes.pixels * sizes.channels * sizes.all_frames,), jnp.float32),
        grid=(down * across * (sizes.all_frames // _frames(sizes, outputs)), sizes.channels),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * 2,
        out_specs=pl.BlockSpec(memory_space=pl.ANY),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS // 2, num_stages=1),
        interpret=interpret,
        name="rsa_map_grad",
    )(weights.reshape(-1), sums_grad)
    grad = grad.reshape(moves, sizes.height, sizes.width, sizes.channels, sizes.all_frames)
    grad = grad[..., : sizes.clips * sizes.frames].reshape(*grad.shape[:-1], sizes.clips, sizes.frames)
    # Sums for a shift in time are stored at the frame of the window's middle.
    grad = jnp.pad(grad, [(0, 0)] * 5 + [(moves // 2, moves // 2)])
    frames = [grad[i, ..., moves - 1 - i : moves - 1 - i + sizes.frames] for i in range(moves)]
    return sum(frames[1:], start=frames[0]).transpose(3, 4, 0, 1, 2)


def _frames(sizes: Sizes, outputs: int) -> int:
    """Number of frames for which a program computes gradients of a feature map."""
    of_totals = NUMBERS * 4 // (sizes.kernel_size[0] * SMALLEST)
    of_factor = 2 * FACTOR // (block(outputs) * sizes.itemsize)
    room = max(SMALLEST, min(MOST_FRAMES, of_totals, of_factor))
    return math.gcd(sizes.all_frames, 2 ** int(math.log2(room)))


def _map_kernel(weights_ref: Any, grad_ref: Any, out_ref: Any, *, outputs: int, shared: bool, sizes: Sizes) -> None:
    """Sum the contributions of surrounding pixels to each pixel of a tile, for each shift in time."""
    moves, rows, columns = sizes.kernel_size
    channel, across, length = pl.program_id(1), pl.cdiv(sizes.width, TILE), _frames(sizes, outputs)
    tile, frames = divide(pl.program_id(0), sizes.all_frames // length)
    top, left = (TILE * i for i in divide(tile, across))
    frame = frames * length + jnp.arange(length)
    row, column = divide(jnp.arange(SMALLEST), TILE)
    output = jnp.arange(block(outputs))
    step = outputs if shared else sizes.channels * outputs

    def add(y: Array, x: Array, totals: list[Float[Array, "P F"]]) -> list[Float[Array, "P F"]]:
        # Position, in the window of pixel (y, x), of the tile's pixel at (row, column).
        place_y, place_x = top + row - y + rows // 2, left + column - x + columns // 2
        inside = (place_y >= 0) & (place_y < rows) & (place_x >= 0) & (place_x < columns)
        index = (place_y * columns + place_x)[:, None] * step + output[None] + (0 if shared else channel * outputs)
        inside = inside[:, None] & (output < outputs)[None]
        there = jnp.broadcast_to((output < outputs)[:, None], (len(output), length))
        source = ((y * sizes.width + x) * sizes.channels + channel) * outputs + output[:, None]
        grad = plgpu.load(grad_ref.at[source * sizes.all_frames + frame[None]], mask=there, other=0)
        for i, total in enumerate(totals):
            weights = plgpu.load(weights_ref.at[index + i * rows * columns * step], mask=inside, other=0)
            totals[i] = total + product(weights, grad)
        return totals

    def add_row(y: Array, totals: list[Float[Array, "P F"]]) -> list[Float[Array, "P F"]]:
        return lax.fori_loop(*_around(left, columns, sizes.width), lambda x, totals: add(y, x, totals), totals)

    totals = [jnp.zeros((SMALLEST, length), jnp.float32)] * moves
    totals = lax.fori_loop(*_around(top, rows, sizes.height), add_row, totals)
    inside = (top + row < sizes.height) & (left + column < sizes.width)
    for i, total in enumerate(totals):
        index = ((i * sizes.height + top + row) * sizes.width + left + column) * sizes.channels + channel
        index = index[:, None] * sizes.all_frames + frame[None]
        store(out_ref, (index, jnp.broadcast_to(inside[:, None], index.shape)), total)


def _around(first: Array, size: int, length: int) -> tuple[Array, Array]:
    """Start and end, along an axis, of the pixels in the windows of a tile, clipped to the feature map."""
    reach = size // 2
    return jnp.maximum(first - reach, 0), jnp.minimum(first + TILE + reach, length)
