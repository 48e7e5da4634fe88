"""Sizes of a transform, and of the block of positions that a program computes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights
from rsa_jax.ops.windows import KernelSize

# Minimum number of rows and columns of a matrix product.
SMALLEST = 16
# Warps of a program, of 32 threads each.
WARPS = 8
# Numbers of one array that a program's threads hold: the target and the maximum. The largest kernel holds three such
# arrays; with more numbers, registers would spill to memory.
NUMBERS, MOST_NUMBERS = 4096, 16384
# Maximum number of rows of a matrix that multiplies windows, of window entries at a time, and of bytes of all window
# sums of a position and channel.
MOST_ROWS, MOST_ENTRIES, MOST_SUMS = 256, 128, 1024
# Bytes of a factor of a matrix product: factors pass through a multiprocessor's shared memory, of which cards have
# 99 KiB or more for a program.
FACTOR = 16 * 1024
# Indices are 32 bits wide.
LARGEST = 2**31


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a transform on one device. Sides of a program's arrays have to be powers of two: "blocks".

    Attributes:
        clips: clips of the device's batch.
        frames: frames of a clip.
        height, width: size of the feature map.
        kernel_size: size of the window.
        queries: L.
        channels: c, channels of a query.
        latent: D.
        context: whether the context has a relational part.
        itemsize: bytes of a number in the arrays.
    """

    clips: int
    frames: int
    height: int
    width: int
    kernel_size: KernelSize
    queries: int
    channels: int
    latent: int
    context: bool
    itemsize: int

    @property
    def window(self) -> int:
        """Number of positions of a window, M."""
        return math.prod(self.kernel_size)

    @property
    def pixels(self) -> int:
        """Number of pixels of the feature map."""
        return self.height * self.width

    @property
    def sums(self) -> int:
        """Number of window sums of the value, for each position and channel."""
        return self.latent + self.channels * self.context

    @property
    def query_block(self) -> int:
        """L, rounded up to a block."""
        return pl.next_power_of_2(self.queries)

    @property
    def channel_block(self) -> int:
        """c, rounded up to a block."""
        return block(self.channels)

    @property
    def latent_block(self) -> int:
        """D, rounded up to a block."""
        return block(self.latent)

    @property
    def rows(self) -> int:
        """Number of rows of the largest matrix that multiplies windows."""
        return max(self.latent_block, self.channel_block)

    @property
    def entries(self) -> int:
        """Number of entries of a window that are multiplied at a time."""
        room = max(SMALLEST, FACTOR // (self.rows * self.itemsize))
        return min(room, MOST_ENTRIES, block(self.window))

    @property
    def parts(self) -> int:
        """Number of parts of a window, of `entries` entries each."""
        return pl.cdiv(self.window, self.entries)

    @property
    def frame_block(self) -> int:
        """Number of frames, counted over all clips, that a program computes at one pixel."""
        room = NUMBERS // (self.query_block * self.rows)
        return max(SMALLEST, min(room, 2 * SMALLEST, pl.next_power_of_2(self.clips * self.frames)))

    @property
    def blocks(self) -> int:
        """Number of blocks of frames."""
        return pl.cdiv(self.clips * self.frames, self.frame_block)

    @property
    def all_frames(self) -> int:
        """Number of frames of all blocks."""
        return self.blocks * self.frame_block

    def fit(self) -> bool:
        """Whether registers and shared memory hold a program's arrays, and 32-bit indices reach every number."""
        numbers = self.query_block * self.rows * self.frame_block
        moves, rows, columns = self.kernel_size
        moved = (self.height + rows - 1) * (self.width + columns - 1) * moves
        largest = max(self.pixels * max(self.queries, self.sums, moves), moved) * self.channels * self.all_frames
        small = self.rows <= MOST_ROWS and block(self.sums) * self.itemsize <= MOST_SUMS
        return small and numbers <= MOST_NUMBERS and largest < LARGEST


def block(length: int) -> int:
    """Side of a block for `length` rows or columns of a product."""
    return max(SMALLEST, pl.next_power_of_2(length))


def make_sizes(query: Float[Array, "B T H W L C"], weights: RSAWeights, kernel_size: KernelSize) -> Sizes:
    """Sizes of a transform with decomposed weights."""
    assert weights.H2 is not None
    latent, context, itemsize = weights.H2.shape[1], weights.G is not None, query.dtype.itemsize
    clips, frames, height, width, queries, channels = query.shape
    return Sizes(clips, frames, height, width, kernel_size, queries, channels, latent, context, itemsize)


def product(a: Float[Array, "M K"], b: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """Matrix product a b, summed in float32."""
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def divide(x: Array, size: int) -> tuple[Array, Array]:
    """Quotient and remainder of non-negative integers, in two instructions, where `divmod` takes a dozen."""
    divisor = jnp.full_like(x, size)
    return jax.lax.div(x, divisor), jax.lax.rem(x, divisor)
