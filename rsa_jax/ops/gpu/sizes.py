"""The sizes of a transform, and of the block of positions that a program computes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights
from rsa_jax.ops.windows import KernelSize

# Rows and columns of a matrix product are at least as many.
SMALLEST = 16
# Threads of a program, in warps of 32; the numbers that they hold of one array, and the most that they could.
WARPS = 8
NUMBERS, MOST_NUMBERS = 4096, 32768
# Entries of a window that are multiplied at a time.
ENTRIES = 128
# Indices are 32 bits wide.
LARGEST = 2**31


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a transform. Sides of blocks are powers of two: those of a program's arrays have to be.

    Attributes:
        clips: of the batch.
        frames: of a clip.
        height, width: of the map.
        kernel_size: of the window.
        queries: L.
        channels: c of a query.
        latent: D.
        context: whether the context has a relational part.
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

    @property
    def window(self) -> int:
        """Positions of a window, M."""
        return math.prod(self.kernel_size)

    @property
    def pixels(self) -> int:
        """Pixels of the map."""
        return self.height * self.width

    @property
    def sums(self) -> int:
        """Sums over windows of the value, of each position and channel."""
        return self.latent + self.channels * self.context

    @property
    def query_block(self) -> int:
        """L, and more."""
        return pl.next_power_of_2(self.queries)

    @property
    def channel_block(self) -> int:
        """The channels, and more."""
        return block(self.channels)

    @property
    def latent_block(self) -> int:
        """D, and more."""
        return block(self.latent)

    @property
    def entries(self) -> tuple[int, ...]:
        """Entries of windows that are multiplied at a time: M, and more, in parts."""
        if self.window > ENTRIES:
            return (ENTRIES,) * pl.cdiv(self.window, ENTRIES)
        return (block(self.window),)

    @property
    def frame_block(self) -> int:
        """Frames of all clips that a program computes, at one pixel."""
        room = NUMBERS // (self.query_block * max(self.latent_block, self.channel_block))
        return max(SMALLEST, min(room, 2 * SMALLEST, pl.next_power_of_2(self.clips * self.frames)))

    @property
    def blocks(self) -> int:
        """Blocks of frames."""
        return pl.cdiv(self.clips * self.frames, self.frame_block)

    @property
    def all_frames(self) -> int:
        """Frames of all blocks."""
        return self.blocks * self.frame_block

    def fit(self) -> bool:
        """Whether the registers hold the arrays of a program, and an index reaches every number."""
        numbers = self.query_block * max(self.latent_block, self.channel_block) * self.frame_block
        moves, rows, columns = self.kernel_size
        moved = (self.height + rows - 1) * (self.width + columns - 1) * moves
        largest = max(self.pixels * max(self.queries, self.sums, moves), moved) * self.channels * self.all_frames
        return numbers <= MOST_NUMBERS and largest < LARGEST


def block(length: int) -> int:
    """The side of a block for so many rows or columns of a product."""
    return max(SMALLEST, pl.next_power_of_2(length))


def make_sizes(query: Float[Array, "B T H W L C"], weights: RSAWeights, kernel_size: KernelSize) -> Sizes:
    """The sizes of a transform; of weights that are decomposed."""
    assert weights.H2 is not None
    clips, frames, height, width, queries, channels = query.shape
    latent = weights.H2.shape[1]
    return Sizes(clips, frames, height, width, kernel_size, queries, channels, latent, context=weights.G is not None)


def product(a: Float[Array, "M K"], b: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """a b, summed in float32."""
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def divide(x: Array, size: int) -> tuple[Array, Array]:
    """Quotient and remainder of integers that are not negative: two instructions, where `divmod` has a dozen."""
    divisor = jnp.full_like(x, size)
    return jax.lax.div(x, divisor), jax.lax.rem(x, divisor)
