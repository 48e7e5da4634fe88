"""Gradients of sums over windows, Σ_m x[n + m, c] weights[m, c, e]: of the weights, and of the map."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from rsa_jax.ops.gpu.positions import numbered_block, store, with_margins
from rsa_jax.ops.gpu.sizes import SMALLEST, WARPS, Sizes, block, divide, product

# Programs that the sums over all positions are split among: a few for each multiprocessor of the largest cards.
PROGRAMS = 512
# Pixels that a program computes gradients of a map for, down and across: as many as the rows of a product.
TILE = 4


def weights_grad(
    x: Float[Array, "B T H W C"], sums_grad: Float[Array, "N"], *, outputs: int, sizes: Sizes, interpret: bool
) -> Float[Array, "M C E"]:
    """The gradient of each channel's weights, in float32.

    Args:
        x: the map.
        sums_grad: of the sums, `H W C E F` in one axis.
        outputs: E.
        sizes: of the transform.
        interpret: where the device is no GPU.
    """
    total = sizes.pixels * sizes.blocks
    programs = pl.cdiv(PROGRAMS, sizes.channels)
    steps = pl.cdiv(total, programs)
    entries, columns = sum(sizes.entries), block(outputs)
    partial_sums = pl.pallas_call(
        functools.partial(_weights_kernel, outputs=outputs, steps=steps, sizes=sizes),
        out_shape=jax.ShapeDtypeStruct((pl.cdiv(total, steps), sizes.channels, entries, columns), jnp.float32),
        grid=(pl.cdiv(total, steps), sizes.channels),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * 2,
        out_specs=pl.BlockSpec((None, None, entries, columns), lambda i, channel: (i, channel, 0, 0)),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="rsa_weights_grad",
    )(with_margins(x, sizes.kernel_size).reshape(-1), sums_grad)
    return jnp.sum(partial_sums, axis=0)[:, : sizes.window, :outputs].swapaxes(0, 1)


def _weights_kernel(x_ref: Any, grad_ref: Any, out_ref: Any, *, outputs: int, steps: int, sizes: Sizes) -> None:
    channel, first = pl.program_id(1), pl.program_id(0) * steps
    row = jnp.arange(block(outputs))[:, None]

    def add(i: Array, totals: list[Float[Array, "m E"]]) -> list[Float[Array, "m E"]]:
        within = first + i < sizes.pixels * sizes.blocks
        at = numbered_block(jnp.where(within, first + i, 0), sizes)
        index = ((at.pixel * sizes.channels + channel) * outputs + row) * sizes.all_frames + at.place
        grad = plgpu.load(grad_ref.at[index], mask=jnp.broadcast_to((row < outputs) & within, index.shape), other=0)
        windows = at.windows(x_ref, channel)
        return [total + product(part, grad.T) for total, part in zip(totals, windows, strict=True)]

    zeros = [jnp.zeros((size, block(outputs)), jnp.float32) for size in sizes.entries]
    totals = lax.fori_loop(0, steps, add, zeros)
    start = 0
    for total in totals:
        out_ref[pl.ds(start, len(total))] = total
        start += len(total)


def map_grad(
    weights: Float[Array, "M #C E"], sums_grad: Float[Array, "N"], *, sizes: Sizes, interpret: bool
) -> Float[Array, "B T H W C"]:
    """The gradient of the map. Arguments as above."""
    down, across = pl.cdiv(sizes.height, TILE), pl.cdiv(sizes.width, TILE)
    grad = pl.pallas_call(
        functools.partial(_map_kernel, outputs=weights.shape[-1], shared=weights.shape[1] == 1, sizes=sizes),
        out_shape=jax.ShapeDtypeStruct((sizes.pixels * sizes.channels * sizes.all_frames,), sums_grad.dtype),
        grid=(down * across * sizes.blocks, sizes.channels),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * 2,
        out_specs=pl.BlockSpec(memory_space=pl.ANY),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS // 2, num_stages=1),
        interpret=interpret,
        name="rsa_map_grad",
    )(weights.reshape(-1), sums_grad)
    grad = grad.reshape(sizes.height, sizes.width, sizes.channels, sizes.all_frames)
    grad = grad[..., : sizes.clips * sizes.frames]
    return grad.reshape(*grad.shape[:3], sizes.clips, sizes.frames).transpose(3, 4, 0, 1, 2)


def _map_kernel(weights_ref: Any, grad_ref: Any, out_ref: Any, *, outputs: int, shared: bool, sizes: Sizes) -> None:
    """Adds up, for the pixels of a tile, what each pixel around them and each move in time contributes."""
    moves, rows, columns = sizes.kernel_size
    channel, across = pl.program_id(1), pl.cdiv(sizes.width, TILE)
    tile, frames = divide(pl.program_id(0), sizes.blocks)
    top, left = (TILE * i for i in divide(tile, across))
    frame = frames * sizes.frame_block + jnp.arange(sizes.frame_block)
    row, column = divide(jnp.arange(SMALLEST), TILE)
    output = jnp.arange(block(outputs))

    def add(i: Array, total: Float[Array, "P F"]) -> Float[Array, "P F"]:
        i, x = divide(i, TILE + columns - 1)
        move, y = divide(i, TILE + rows - 1)
        # The pixel at (y, x) around the tile has that at (row, column) of it at this place of its window.
        place_y, place_x = row - y + rows - 1, column - x + columns - 1
        inside = (place_y >= 0) & (place_y < rows) & (place_x >= 0) & (place_x < columns)
        place = (move * rows + place_y) * columns + place_x
        index = place[:, None] * (outputs if shared else sizes.channels * outputs) + output[None]
        index += 0 if shared else channel * outputs
        weights = plgpu.load(weights_ref.at[index], mask=inside[:, None] & (output < outputs)[None], other=0)

        source_y, source_x = top + y - rows // 2, left + x - columns // 2
        source = frame - move + moves // 2
        there = (source_y >= 0) & (source_y < sizes.height) & (source_x >= 0) & (source_x < sizes.width)
        there &= (
            (source >= 0)
            & (divide(source, sizes.frames)[0] == divide(frame, sizes.frames)[0])
            & (source < sizes.all_frames)
        )
        index = ((source_y * sizes.width + source_x) * sizes.channels + channel) * outputs + output[:, None]
        index = index * sizes.all_frames + source[None]
        grad = plgpu.load(grad_ref.at[index], mask=there[None] & (output < outputs)[:, None], other=0)
        return total + product(weights, grad)

    steps = moves * (TILE + rows - 1) * (TILE + columns - 1)
    total = lax.fori_loop(0, steps, add, jnp.zeros((SMALLEST, sizes.frame_block), jnp.float32))
    inside = (top + row < sizes.height) & (left + column < sizes.width)
    index = ((top + row) * sizes.width + left + column) * sizes.channels + channel
    index = index[:, None] * sizes.all_frames + frame[None]
    store(out_ref, (index, jnp.broadcast_to(inside[:, None], index.shape)), total)
