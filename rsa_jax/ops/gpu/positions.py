"""A program's positions, and what it loads for them.

A program computes a block of frames at one pixel. The query lies as the layer has it, `B T H W L C`, and the result,
`B T H W C L`. Key and value have their frames last, a copy for each move in time, and zeros around: so the windows of a
block are rows of frames, and threads load them several numbers at a time.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights
from rsa_jax.ops.gpu.sizes import LARGEST, Sizes, divide, product


class Operands(NamedTuple):
    """Arrays that the kernels of positions take. Parts that the transform does not have are None.

    Attributes:
        query: `B T H W L C`, in one axis, as the kernels index it.
        key: see `moved`.
        value: likewise.
        H1: matrices from a window to A, `C D M`. D, C behind it and M are those of blocks, see `Sizes`.
        H2: the matrix from a window to H2ᵀ X^V, `D M`.
        G: likewise, to the relational context, `C M`.
        P1: `C D`, in float32.
        identity: `C C`, in float32.
    """

    query: Any
    key: Any
    value: Any
    H1: Any
    H2: Any
    G: Any
    P1: Any
    identity: Any


def make_operands(query: Array, key: Array, value: Array, weights: RSAWeights, sizes: Sizes) -> Operands:
    """The operands of a transform, whose H1 has entries of every channel."""
    H2, H1, P1, G, identity = weights
    entries = sum(sizes.entries)

    def matrix(x: Float[Array, "M *C E"] | None, outputs: int) -> Float[Array, "*C e m"] | None:
        if x is None:
            return None
        x = jnp.moveaxis(x, 0, -1)
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, outputs - x.shape[-2]), (0, entries - x.shape[-1])])

    def offset(x: Float[Array, "C E"] | None, outputs: int) -> Float[Array, "C e"] | None:
        return None if x is None else jnp.pad(x.astype(jnp.float32), [(0, 0), (0, outputs - x.shape[1])])

    return Operands(
        query.reshape(-1),
        None if H1 is None else moved(key, sizes),
        moved(value, sizes),
        matrix(H1, sizes.latent_block),
        matrix(H2, sizes.latent_block),
        matrix(G, sizes.channel_block),
        offset(P1, sizes.latent_block),
        offset(identity, sizes.channel_block),
    )


def moved(x: Float[Array, "B T H W C"], sizes: Sizes) -> Float[Array, "N"]:
    """`H+ W+ C m_t F` in one axis: the map moved by each of a window's frames, F as in a whole number of blocks."""
    moves, rows, columns = sizes.kernel_size
    x = jnp.pad(x.transpose(2, 3, 4, 0, 1), [(0, 0)] * 4 + [(moves // 2, moves // 2)])
    x = jnp.stack([x[..., i : i + sizes.frames] for i in range(moves)], axis=3)
    x = x.reshape(*x.shape[:4], -1)
    margins = [(rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0), (0, 0)]
    return jnp.pad(x, [*margins, (0, sizes.all_frames - x.shape[-1])]).reshape(-1)


class Block(NamedTuple):
    """The positions of a program: a block of frames at one pixel.

    Attributes:
        number: of the block.
        pixel: number of the pixel.
        place: frames, numbered over all clips and what fills up the last block.
        sizes: of the transform.
    """

    number: Array
    pixel: Array
    place: Array
    sizes: Sizes

    @property
    def inside(self) -> Array:
        """Which frames are those of a clip."""
        return self.place < self.sizes.clips * self.sizes.frames

    @property
    def frame(self) -> Array:
        """The frames, of which the last stands for those that fill up its block."""
        return jnp.minimum(self.place, self.sizes.clips * self.sizes.frames - 1)

    def windows(self, x: Any, channel: Array) -> list[Float[Array, "m F"]]:
        """Windows of a channel, in parts: see `Sizes.entries`. There is something behind M, for weights of 0."""
        sizes = self.sizes
        moves, rows, columns = sizes.kernel_size
        width, row_length = sizes.width + columns - 1, moves * sizes.all_frames

        def place(row: Array, column: Array) -> Array:
            return (row * width + column) * (sizes.channels * row_length)

        first = place(*divide(self.pixel, sizes.width)) + channel * row_length
        parts = []
        for i, size in enumerate(sizes.entries):
            m = jnp.minimum(i * size + jnp.arange(size), sizes.window - 1)
            move, pixel = divide(m, rows * columns)
            offset = place(*divide(pixel, columns)) + move * sizes.all_frames
            parts.append(plgpu.load(x.at[offset[:, None] + (first + self.place)[None]]))
        return parts

    def rows(self, channel: Array) -> tuple[Array, Array]:
        """Where a channel of all queries lies in `B T H W L C`, and which of them are there: `L F`."""
        sizes, query = self.sizes, self._queries()
        index = ((self.frame * sizes.pixels + self.pixel) * sizes.queries + query) * sizes.channels + channel
        return index, (query < sizes.queries) & self.inside

    def all_rows(self) -> tuple[Array, Array]:
        """Where all channels lie: `L C F`."""
        channel = jnp.arange(self.sizes.channel_block)[:, None]
        index, inside = self.rows(jnp.int32(0))
        return index[:, None] + channel, inside[:, None] & (channel < self.sizes.channels)

    def results(self, channel: Array) -> tuple[Array, Array]:
        """Where a channel of all queries lies in `B T H W C L`: results have the order that the layer's have."""
        sizes, query = self.sizes, self._queries()
        index = ((self.frame * sizes.pixels + self.pixel) * sizes.channels + channel) * sizes.queries + query
        return index, (query < sizes.queries) & self.inside

    def all_results(self) -> tuple[Array, Array]:
        """Where all channels lie: `L C F`."""
        channel = jnp.arange(self.sizes.channel_block)[:, None]
        index, inside = self.results(jnp.int32(0))
        return index[:, None] + self.sizes.queries * channel, inside[:, None] & (channel < self.sizes.channels)

    def _queries(self) -> Array:
        return jnp.arange(self.sizes.query_block)[:, None]


def numbered_block(number: Array, sizes: Sizes) -> Block:
    """The positions of a block, which are counted by pixels, then by frames."""
    pixel, frames = divide(number, sizes.blocks)
    return Block(number, pixel, frames * sizes.frame_block + jnp.arange(sizes.frame_block), sizes)


def sums(matrices: Any, windows: list[Float[Array, "m F"]], *channel: Array) -> Float[Array, "E F"]:
    """Products of a matrix `E M`, that of the channel where each has its own, with windows."""
    first, products = 0, []
    for part in windows:
        products.append(product(matrices[*channel, :, pl.ds(first, len(part))], part))
        first += len(part)
    return sum(products[1:], start=products[0])


def load(x: Any, place: tuple[Array, Array]) -> Float[Array, "*N"]:
    """Numbers in float32; 0 where there are none."""
    index, inside = place
    return plgpu.load(x.at[index], mask=inside, other=0).astype(jnp.float32)


def store(x: Any, place: tuple[Array, Array], numbers: Float[Array, "*N"]) -> None:
    """Writes numbers where there is a place for them."""
    index, inside = place
    # Interpreted, all of the block is written: what has no place must not fall on what has one.
    index = jnp.where(inside, index, LARGEST - 1)
    plgpu.store(x.at[index], numbers.astype(x.dtype), mask=inside)


def latent_kernels(operands: Operands, at: Block) -> Float[Array, "L D F"]:
    """z[l, d] = Σ_c q[l, c] (P1 + A)[c, d]; without a relational part, the query."""
    if operands.H1 is None:
        return load(operands.query, at.all_rows())
    sizes = at.sizes

    def add(channel: Array, z: Float[Array, "L D F"]) -> Float[Array, "L D F"]:
        query = load(operands.query, at.rows(channel))
        return z + query[:, None] * key_code(operands, at, channel)[None]

    zeros = jnp.zeros((sizes.query_block, sizes.latent_block, sizes.frame_block), jnp.float32)
    return jax.lax.fori_loop(0, sizes.channels, add, zeros)


def key_code(operands: Operands, at: Block, channel: Array) -> Float[Array, "D F"]:
    """P1 + A of a channel."""
    code = sums(operands.H1, at.windows(operands.key, channel), channel)
    return code if operands.P1 is None else code + operands.P1[channel][:, None]


def value_code(operands: Operands, windows: list[Float[Array, "m F"]]) -> Float[Array, "D F"]:
    """H2ᵀ X^V of a channel, by its windows."""
    return sums(operands.H2, windows)


def value_context(operands: Operands, windows: list[Float[Array, "m F"]], channel: Array) -> Float[Array, "C F"]:
    """I + (X^V)ᵀ G of a channel, by its windows."""
    context = sums(operands.G, windows)
    return context if operands.identity is None else context + operands.identity[channel][:, None]
