"""Positions of a program, and the arrays that it loads for them.

A program computes a block of frames at one pixel. Query and result are in the layer's order: `B T H W L C` for the
query, `B T H W C L` for the result. Key and value have their frames last, with a copy for each shift in time, and zero
padding. The windows of a block are therefore rows of frames, which threads load several numbers at a time.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights
from rsa_jax.ops.gpu.sizes import LARGEST, Sizes, divide, product

# Largest number of parts of a window for which the loop over them is unrolled: fast to run, slow to compile.
WRITTEN_OUT = 2


class Operands(NamedTuple):
    """Arrays for the forward and backward kernels. Parts that the transform does not have are None.

    Attributes:
        query: `B T H W L C` as a flat array, as the kernels index it.
        key: see `moved`.
        value: see `moved`.
        H1: matrices from a window to A, `C D M`. Here and below, D and the last C are zero-padded to a block, and M to
            whole parts of a window (see `Sizes`).
        H2: the matrix from a window to H2ᵀ X^V, `D M`.
        G: the matrix from a window to the relational context, `C M`.
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
    """Operands of a transform, whose H1 has entries for every channel."""
    H2, H1, P1, G, identity = weights
    entries = sizes.parts * sizes.entries

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


def moved(x: Float[Array, "B T H W C"], sizes: Sizes) -> Float[Array, " N"]:
    """`H+ W+ C m_t F` as a flat array: `x` shifted by each of a window's frames, with F padded to whole blocks."""
    moves, rows, columns = sizes.kernel_size
    x = jnp.pad(x.transpose(2, 3, 4, 0, 1), [(0, 0)] * 4 + [(moves // 2, moves // 2)])
    x = jnp.stack([x[..., i : i + sizes.frames] for i in range(moves)], axis=3)
    x = x.reshape(*x.shape[:4], -1)
    margins = [(rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0), (0, 0)]
    return jnp.pad(x, [*margins, (0, sizes.all_frames - x.shape[-1])]).reshape(-1)


class Block(NamedTuple):
    """Positions of a program: a block of frames at one pixel.

    Attributes:
        number: index of the block.
        pixel: index of the pixel.
        place: indices of the frames over all clips, and of padding after the last.
        sizes: sizes of the transform.
    """

    number: Array
    pixel: Array
    place: Array
    sizes: Sizes

    @property
    def inside(self) -> Array:
        """Mask of the frames that belong to a clip."""
        return self.place < self.sizes.clips * self.sizes.frames

    @property
    def frame(self) -> Array:
        """Indices of the frames; the last frame in place of padding."""
        return jnp.minimum(self.place, self.sizes.clips * self.sizes.frames - 1)

    def windows(self, x: Any, channel: Array, part: int | Array) -> Float[Array, "m F"]:
        """A part of a channel's windows (see `Sizes.entries`). Past the end, the last entry is repeated."""
        sizes = self.sizes
        moves, rows, columns = sizes.kernel_size
        width, row_length = sizes.width + columns - 1, moves * sizes.all_frames

        def place(row: Array, column: Array) -> Array:
            return (row * width + column) * (sizes.channels * row_length)

        entry = jnp.minimum(part * sizes.entries + jnp.arange(sizes.entries), sizes.window - 1)
        move, pixel = divide(entry, rows * columns)
        offset = place(*divide(pixel, columns)) + move * sizes.all_frames
        first = place(*divide(self.pixel, sizes.width)) + channel * row_length
        return plgpu.load(x.at[offset[:, None] + (first + self.place)[None]])

    def sums(self, x: Any, channel: Array, *matrices: Callable[[Any], Array]) -> list[Float[Array, "E F"]]:
        """Products of matrices with a channel's windows.

        Args:
            x: see `moved`.
            channel: index of a channel of `x`.
            matrices: functions from a slice of entries to those columns of a matrix `E M`.
        """
        sizes = self.sizes

        def products(part: int | Array) -> list[Float[Array, "E F"]]:
            windows, entries = self.windows(x, channel, part), pl.ds(part * sizes.entries, sizes.entries)
            return [product(matrix(entries), windows) for matrix in matrices]

        def add(part: int | Array, totals: list[Float[Array, "E F"]]) -> list[Float[Array, "E F"]]:
            return [total + more for total, more in zip(totals, products(part), strict=True)]

        totals = products(0)
        if sizes.parts <= WRITTEN_OUT:
            for part in range(1, sizes.parts):
                totals = add(part, totals)
            return totals
        return lax.fori_loop(1, sizes.parts, add, totals)

    def rows(self, channel: Array) -> tuple[Array, Array]:
        """Indices of a channel of all queries in `B T H W L C`, and the mask of those that exist: `L F`."""
        sizes, query = self.sizes, self._queries()
        index = ((self.frame * sizes.pixels + self.pixel) * sizes.queries + query) * sizes.channels + channel
        return index, (query < sizes.queries) & self.inside

    def all_rows(self) -> tuple[Array, Array]:
        """Indices and mask of `rows` for all channels: `L C F`."""
        channel = jnp.arange(self.sizes.channel_block)[:, None]
        index, inside = self.rows(jnp.int32(0))
        return index[:, None] + channel, inside[:, None] & (channel < self.sizes.channels)

    def results(self, channel: Array) -> tuple[Array, Array]:
        """Indices of a channel of all queries in `B T H W C L`, the layer's order of results, and the mask: `L F`."""
        sizes, query = self.sizes, self._queries()
        index = ((self.frame * sizes.pixels + self.pixel) * sizes.channels + channel) * sizes.queries + query
        return index, (query < sizes.queries) & self.inside

    def all_results(self) -> tuple[Array, Array]:
        """Indices and mask of `results` for all channels: `L C F`."""
        channel = jnp.arange(self.sizes.channel_block)[:, None]
        index, inside = self.results(jnp.int32(0))
        return index[:, None] + self.sizes.queries * channel, inside[:, None] & (channel < self.sizes.channels)

    def _queries(self) -> Array:
        return jnp.arange(self.sizes.query_block)[:, None]


def numbered_block(number: Array, sizes: Sizes) -> Block:
    """Positions of a block. Blocks are numbered by pixel, then by frames."""
    pixel, frames = divide(number, sizes.blocks)
    return Block(number, pixel, frames * sizes.frame_block + jnp.arange(sizes.frame_block), sizes)


def load(x: Any, place: tuple[Array, Array]) -> Float[Array, "*N"]:
    """Load numbers in float32; 0 outside the mask."""
    index, inside = place
    return plgpu.load(x.at[index], mask=inside, other=0).astype(jnp.float32)


def store(x: Any, place: tuple[Array, Array], numbers: Float[Array, "*N"]) -> None:
    """Write the numbers inside the mask."""
    index, inside = place
    # The interpreter writes the whole block: numbers outside the mask must not overwrite those inside.
    index = jnp.where(inside, index, LARGEST - 1)
    plgpu.store(x.at[index], numbers.astype(x.dtype), mask=inside)


def latent_kernels(operands: Operands, at: Block) -> Float[Array, "L D F"]:
    """z[l, d] = Σ_c q[l, c] (P1 + A)[c, d]; the query if the kernel has no relational part."""
    if operands.H1 is None:
        return load(operands.query, at.all_rows())
    sizes = at.sizes

    def add(channel: Array, z: Float[Array, "L D F"]) -> Float[Array, "L D F"]:
        query = load(operands.query, at.rows(channel))
        return z + query[:, None] * key_code(operands, at, channel)[None]

    zeros = jnp.zeros((sizes.query_block, sizes.latent_block, sizes.frame_block), jnp.float32)
    return lax.fori_loop(0, sizes.channels, add, zeros)


def key_code(operands: Operands, at: Block, channel: Array) -> Float[Array, "D F"]:
    """P1 + A of a channel."""
    (code,) = at.sums(operands.key, channel, lambda entries: operands.H1[channel, :, entries])
    return code if operands.P1 is None else code + operands.P1[channel][:, None]


def value_codes(
    operands: Operands, at: Block, channel: Array
) -> tuple[Float[Array, "D F"], Float[Array, "C F"] | None]:
    """H2ᵀ X^V of a channel, and I + (X^V)ᵀ G if the context has a relational part."""
    matrices = [operands.H2] if operands.G is None else [operands.H2, operands.G]
    columns = [functools.partial(_columns, matrix) for matrix in matrices]
    code, *contexts = at.sums(operands.value, channel, *columns)
    if not contexts:
        return code, None
    (context,) = contexts
    return code, context if operands.identity is None else context + operands.identity[channel][:, None]


def _columns(matrix: Any, entries: Any) -> Float[Array, "E m"]:
    return matrix[:, entries]
