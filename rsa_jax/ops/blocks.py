"""Blocks of neighbouring positions, and band matrices that apply a window's weights to a block.

Outputs that are neighbours in time and width form a block. They depend on a block of inputs, in each of the window's
rows, that is longer by the window's size minus one along both axes. As a matrix from these inputs to these outputs,
the window's weights form a band.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.windows import KernelSize, pad


class Blocks(NamedTuple):
    """An axis of a feature map, split into blocks of outputs.

    Args:
        length: length of the axis.
        size: size of the window along the axis.
        block: number of outputs in a block. The last block may extend past the end of the axis.
    """

    length: int
    size: int
    block: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.length // self.block)

    @property
    def before(self) -> int:
        """Number of inputs before a block's first output. A single block needs none: they are all zeros."""
        return 0 if self.blocks == 1 else self.size // 2

    @property
    def span(self) -> int:
        """Number of inputs of a block."""
        return self.length if self.blocks == 1 else self.block + self.size - 1

    def inputs(self, x: Float[Array, "*N"], axis: int) -> Float[Array, "*M"]:
        """Split the axis into two: blocks, and the inputs of each block."""
        if self.blocks == 1:
            return jnp.expand_dims(x, axis)
        following = -(-(self.span - self.block) // self.block)  # further blocks that a span reaches into
        total = (self.blocks + following) * self.block
        pads = [(0, 0)] * x.ndim
        pads[axis] = (self.before, total - self.before - self.length)
        x = jnp.pad(x, pads)
        x = x.reshape(*x.shape[:axis], -1, self.block, *x.shape[axis + 1 :])
        parts = []
        for i in range(following + 1):
            part = lax.slice_in_dim(x, i, i + self.blocks, axis=axis)
            parts.append(lax.slice_in_dim(part, 0, min(self.block, self.span - i * self.block), axis=axis + 1))
        return jnp.concatenate(parts, axis=axis + 1)

    def band(self, weights: Float[Array, "*N"], axis: int) -> Float[Array, "*M"]:
        """Replace the window's axis by two: inputs and outputs of a block."""
        columns = []
        for output in range(self.block):
            first = output + self.before - self.size // 2  # input for the window's first weight
            pads = [(0, 0, 0)] * weights.ndim
            pads[axis] = (first, self.span - self.size - first, 0)  # negative padding crops
            columns.append(lax.pad(weights, jnp.zeros((), weights.dtype), pads))
        return jnp.stack(columns, axis=axis + 1)


def block_rows(
    x: Float[Array, "B T H W C"], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]
) -> Float[Array, "C B J I H K"]:
    """Inputs of each block (J in time, I in width) in each row H: K = m_h * span in time * span in width."""
    time, width = axes
    height, size = x.shape[2], kernel_size[1]
    x = jnp.moveaxis(pad(x, (1, size, 1)), -1, 0)
    x = time.inputs(width.inputs(x, 4), 2)  # C B J t H I w
    x = x.transpose(0, 1, 2, 5, 4, 3, 6)
    x = x.reshape(*x.shape[:-2], -1)
    # Last, and whole rows at a time: the m_h copies are of contiguous memory.
    return jnp.concatenate([x[..., i : i + height, :] for i in range(size)], axis=-1)


def band_matrices(
    weights: Float[Array, "M C E"], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]
) -> Float[Array, "C K F"]:
    """Weights as matrices from the K inputs of a block to its F = block in time * block in width * E outputs."""
    time, width = axes
    weights = jnp.moveaxis(weights.reshape(*kernel_size, *weights.shape[1:]), 3, 0)
    bands = time.band(width.band(weights, 3), 1)  # C t block m_h w block E
    bands = bands.transpose(0, 3, 1, 4, 2, 5, 6)
    return bands.reshape(bands.shape[0], bands.shape[1] * time.span * width.span, -1)
