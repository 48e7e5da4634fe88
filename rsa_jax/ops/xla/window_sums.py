"""Sums over windows as plain convolutions of blocks of pixels, with the frames of all clips on the last axis.

A chip computes with whole vectors along the last axis, and a window has few channels to fill one with; frames there are
many. What a sum multiplies by is the moves of a frame's pixels in time, and neighbouring pixels of a row: both become
channels of one convolution over the rows and the blocks of a row.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.windows import KernelSize

# Pixels of a row whose sums are channels of one convolution. More make larger products, of which more are zeros.
BLOCK = 16


def window_sums(
    x: Float[Array, "B T H W C"], weights: Float[Array, "M #C E"], *, kernel_size: KernelSize
) -> Float[Array, "B T H W C E"]:
    """Σ_m x[n + m, c] weights[m, c, e]."""
    return frames_first(sums_of_frames(near_frames(x, kernel_size[0]), weights, kernel_size), x.shape[0])


def frames_last(x: Float[Array, "B T *N"]) -> Float[Array, "*N F"]:
    """The frames of all clips, F = B T, on the last axis."""
    return jnp.moveaxis(x.reshape(-1, *x.shape[2:]), 0, -1)


def frames_first(x: Float[Array, "*N F"], clips: int) -> Float[Array, "B T *N"]:
    """Inverts `frames_last`."""
    x = jnp.moveaxis(x, -1, 0)
    return x.reshape(clips, -1, *x.shape[1:])


def near_frames(x: Float[Array, "B T H W C"], number: int) -> Float[Array, "H W t C F"]:
    """Every frame with its neighbours in time; zeros outside of the clip."""
    frames, around = x.shape[1], number // 2
    x = jnp.pad(x, ((0, 0), (around, around), (0, 0), (0, 0), (0, 0)))
    return frames_last(jnp.stack([x[:, i : i + frames] for i in range(number)], axis=4))


def sums_of_frames(
    near: Float[Array, "H W t C F"], weights: Float[Array, "M #C E"], kernel_size: KernelSize
) -> Float[Array, "H W C E F"]:
    """Σ_m x[n + m, c] weights[m, c, e].

    Args:
        near: x, by `near_frames`.
        weights: of each channel, or such as all share.
        kernel_size: of the window.
    """
    height, width, moves, channels, frames = near.shape
    _, rows, columns = kernel_size
    groups, outputs = weights.shape[1:]
    # Blocks of a row, and how many of them a block's windows reach into.
    blocks = -(-width // BLOCK)
    block = -(-width // blocks)
    reached = 1 if blocks == 1 else -(-(block + columns - 1) // block)
    before = 0 if blocks == 1 else columns // 2
    total = (blocks + reached - 1) * block
    x = jnp.pad(near, ((rows // 2, rows // 2), (before, total - before - width), (0, 0), (0, 0), (0, 0)))
    x = x.reshape(-1, blocks + reached - 1, block * moves, channels, frames)
    kernels = _block_kernels(weights.reshape(*kernel_size, groups, outputs), block, reached, before)

    def convolve(x: Float[Array, "H+ n K N"], kernel: Float[Array, "h r K O"]) -> Float[Array, "H W E N"]:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        numbers = ("HWCN", "HWIO", "HWCN")
        y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers, preferred_element_type=wide)
        return y.astype(x.dtype).reshape(height, blocks * block, outputs, -1)[:, :width]

    if groups == 1:
        y = convolve(x.reshape(*x.shape[:3], -1), kernels[0])
        return jnp.moveaxis(y.reshape(*y.shape[:3], channels, frames), 3, 2)
    return jax.vmap(convolve, in_axes=(3, 0), out_axes=2)(x, kernels)


def _block_kernels(
    weights: Float[Array, "t h w G E"], block: int, reached: int, before: int
) -> Float[Array, "G h r K O"]:
    """Kernels from the K = block * t channels of blocks to the O = block * E sums of one."""
    moves, rows, columns, groups, outputs = weights.shape
    offset, blocks, inputs, pixels = np.ogrid[:columns, :reached, :block, :block]
    meets = blocks * block + inputs - before - pixels == offset - columns // 2
    kernels = jnp.einsum("thwge,wrip->ghritpe", weights, jnp.asarray(meets, weights.dtype))
    return kernels.reshape(groups, rows, reached, block * moves, block * outputs)
