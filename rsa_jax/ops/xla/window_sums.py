"""Window sums as convolutions that fill a matrix unit, with the frames of all clips on the last axis."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.devices import on_each_device
from rsa_jax.ops.windows import KernelSize
from rsa_jax.ops.xla.frames import frames_first, frames_last

# Rows and columns of a matrix unit.
MATRIX_UNIT = 128


def window_sums(
    x: Float[Array, "B T H W C"], weights: Float[Array, " M #C E"], *, kernel_size: KernelSize
) -> Float[Array, "B T H W C E"]:
    """Σ_m x[n + m, c] weights[m, c, e]."""
    frames = x.shape[1]
    return frames_first(window_sums_of_frames(frames_last(x), weights, kernel_size, frames), frames)


class RowBlocks(NamedTuple):
    """A row of a feature map, split into blocks of pixels.

    Args:
        number: number of blocks.
        size: number of pixels in a block. The last block may extend past the end of the row.
        reach: number of blocks that the windows of a block cover, including the block itself.
        before: number of zeros before the row.
    """

    number: int
    size: int
    reach: int
    before: int


def choose_row_blocks(width: int, kernel_size: KernelSize, outputs: int) -> RowBlocks:
    """Blocks that take the fewest passes through a matrix unit; among equals the smallest, which have fewer zeros."""

    def blocks(number: int) -> RowBlocks:
        size = -(-width // number)
        if number == 1:
            return RowBlocks(1, width, 1, 0)
        return RowBlocks(-(-width // size), size, -(-(size + kernel_size[2] - 1) // size), kernel_size[2] // 2)

    def passes(blocks: RowBlocks) -> int:
        inputs, sums = kernel_size[0] * blocks.size, blocks.size * outputs
        return blocks.number * blocks.reach * -(-inputs // MATRIX_UNIT) * -(-sums // MATRIX_UNIT)

    return min((blocks(number) for number in range(width, 0, -1)), key=passes)


def window_sums_of_frames(
    x: Float[Array, "H W C F"], weights: Float[Array, " M #C E"], kernel_size: KernelSize, frames: int
) -> Float[Array, "H W C E F"]:
    """Σ_m x[n + m, c] weights[m, c, e] for clips of `frames` frames."""
    function = functools.partial(_window_sums, kernel_size=kernel_size, frames=frames)
    clips = x.shape[-1] // frames
    return on_each_device(function, x, weights, in_axes=(3, None), out_axes=4, clips=clips)


def _window_sums(
    x: Float[Array, "H W C F"], weights: Float[Array, " M #C E"], kernel_size: KernelSize, frames: int
) -> Float[Array, "H W C E F"]:
    """Window sums as convolutions.

    The convolution's channels are the pixels of a block of a row, each with its neighbours in time: m_t times the block
    size as inputs, and E times the block size as outputs. The kernel is a band between blocks. The convolution runs
    over the rows, and over the few blocks that a block depends on. Each channel of the feature map has its own
    convolution; channels that share their weights are merged with the frames instead.
    """
    (height, width, channels, count), (groups, outputs) = x.shape, weights.shape[1:]
    moves, rows, columns = kernel_size
    blocks = choose_row_blocks(width, kernel_size, outputs)
    after = (blocks.number + blocks.reach - 1) * blocks.size - blocks.before - width
    x = jnp.pad(x, [(rows // 2, rows // 2), (blocks.before, after), (0, 0), (0, 0)])
    clips = jnp.pad(x.reshape(*x.shape[:3], -1, frames), [(0, 0)] * 4 + [(moves // 2, moves // 2)])
    x = jnp.stack([clips[..., i : i + frames].reshape(x.shape) for i in range(moves)], axis=2)  # H W t C F
    x = x.reshape(x.shape[0], -1, blocks.size * moves, channels, count)

    tap, source, target = np.ogrid[: blocks.reach, : blocks.size, : blocks.size]
    column = tap * blocks.size + source - blocks.before - target + columns // 2
    band = jnp.asarray(column == np.arange(columns)[:, None, None, None], weights.dtype)
    kernel = jnp.einsum("thwge,wJio->ghJitoe", weights.reshape(*kernel_size, groups, outputs), band)
    kernel = kernel.reshape(groups, rows, blocks.reach, x.shape[2], blocks.size * outputs)

    def convolve(x: Float[Array, "H J K N"], kernel: Float[Array, "h j K O"]) -> Float[Array, "H J O N"]:
        # Sums are in float32 by default. If float32 is requested, a GPU converts the inputs to float32, too.
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("HWCN", "HWIO", "HWCN"))

    if groups == 1:
        y = convolve(x.reshape(*x.shape[:3], -1), kernel[0])
        y = jnp.moveaxis(y.reshape(height, -1, outputs, channels, count), 3, 2)
    else:
        y = jax.vmap(convolve, in_axes=(3, 0), out_axes=2)(x, kernel)  # H J C O F
        y = y.reshape(height, -1, channels, blocks.size, outputs, count).swapaxes(2, 3)
        y = y.reshape(height, -1, channels, outputs, count)
    return y[:, :width]
