"""Arrays in the order that the kernels take: pixels first, then channels, and the frames of all clips on the lanes."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from rsa_jax.ops.equations import RSAWeights
from rsa_jax.ops.tpu.tiles import LANES, SUBLANES, Sizes, Tile, round_up
from rsa_jax.ops.windows import KernelSize


class Operands(NamedTuple):
    """Arrays that both kernels take. Parts that the transform does not have are None.

    The same tuple holds their shapes, their block specifications and their gradients.

    F is the number of frames; c, D and F are rounded up to whole registers. P is the number of pixels of a tile, J the
    number of rows of the padded feature map, E the number of entries of a tile's windows.

    Attributes:
        query: queries of each pixel, `H W L c F`.
        key: for each row and tile across, the columns that the tile's windows cover, `c J across columns F`. Two rows
            are stacked if they share a register: `c J/2 across 2*columns F`.
        value: same layout as the key.
        H1: matrices from a tile's windows to A, `c P*D E`.
        H2G: the matrix from a tile's windows to H2ᵀ X^V, and below it to the relational context, `P*D+P*c E`.
        P1: copied to every lane, `c D 128`.
        identity: copied to every lane, `c c 128`.
    """

    query: Any
    key: Any
    value: Any
    H1: Any
    H2G: Any
    P1: Any
    identity: Any


class Maps(NamedTuple):
    """Query, key and value with their frames last (see frames.py). The key is None if no kernel needs it.

    They are split over devices in this order: XLA removes the transpositions before and after.
    """

    query: Float[Array, "H W L C F"]
    key: Float[Array, "H W C F"] | None
    value: Float[Array, "H W C F"]


def make_sizes(query: Float[Array, "B T H W L C"], weights: RSAWeights, kernel_size: KernelSize) -> Sizes:
    """Sizes of a transform with decomposed weights."""
    assert weights.H2 is not None
    _, frames, height, width, queries, channels = query.shape
    return Sizes(
        frames,
        height,
        width,
        kernel_size,
        queries,
        round_up(channels, SUBLANES),
        round_up(weights.H2.shape[1], SUBLANES),
        relation=weights.H1 is not None,
        context=weights.G is not None,
        itemsize=query.dtype.itemsize,
    )


def make_operands(maps: Maps, weights: RSAWeights, tile: Tile) -> Operands:
    """Operands of a transform."""
    return Operands(*order_maps(maps, tile), *order_weights(weights, tile))


def order_maps(maps: Maps, tile: Tile) -> tuple[Array, Array | None, Array]:
    """Query, key and value of the operands; linear in the maps."""
    query, key, value = maps
    rows = None if key is None else rows_of_windows(key, tile)
    return order_queries(query, tile), rows, rows_of_windows(value, tile)


def order_queries(x: Float[Array, "H W L C F"], tile: Tile) -> Float[Array, "H W L c F"]:
    """Queries of the operands."""
    x, sizes = clips_on_lanes(x, tile.sizes.frames), tile.sizes
    return fill(x, tile.down * tile.height, tile.across * tile.width, sizes.queries, sizes.channels, x.shape[-1])


def order_results(y: Float[Array, "H W C*L F"], tile: Tile) -> Float[Array, "H W c*L F"]:
    """Results in the kernels' order: channel by channel, as in the layer."""
    y, sizes = clips_on_lanes(y, tile.sizes.frames), tile.sizes
    return fill(y, tile.down * tile.height, tile.across * tile.width, sizes.channels * sizes.queries, y.shape[-1])


def order_weights(weights: RSAWeights, tile: Tile) -> tuple[Array | None, Array, Array | None, Array | None]:
    """H1, H2G, P1 and identity of the operands; linear in the weights, whose H1 has entries for every channel."""
    H2, H1, P1, G, identity = weights
    assert H2 is not None
    positions, channels, latent = len(H2), tile.sizes.channels, tile.sizes.latent

    def on_lanes(x: Float[Array, "C D"] | None, outputs: int) -> Float[Array, "c D 128"]:
        wide = jnp.promote_types(H2.dtype, jnp.float32)
        x = jnp.zeros((channels, outputs), wide) if x is None else fill(x.astype(wide), channels, outputs)
        return jnp.broadcast_to(x[..., None], (*x.shape, LANES))

    H2G = banded(fill(H2, positions, latent)[:, None], tile)[0]
    if G is not None:
        H2G = jnp.concatenate([H2G, banded(fill(G, positions, channels)[:, None], tile)[0]])
    identity = None if G is None else on_lanes(identity, channels)
    if H1 is None:
        return None, H2G, None, identity
    return banded(fill(H1, positions, channels, latent), tile), H2G, on_lanes(P1, latent), identity


def cut_results(
    y: Float[Array, "H W c*L F"], query: Float[Array, "H W L C F"], tile: Tile
) -> Float[Array, "H W C*L F"]:
    """The inverse of `order_results`, for queries of this shape."""
    height, width, queries, channels, count = query.shape
    y = y[:height, :width, : channels * queries]
    clips = LANES // tile.sizes.frames
    if clips * tile.sizes.frames < LANES:
        y = y.reshape(*y.shape[:-1], -1, LANES)[..., : clips * tile.sizes.frames].reshape(*y.shape[:-1], -1)
    return y[..., :count]


def clips_on_lanes(x: Float[Array, "*N F"], frames: int) -> Float[Array, "*N F"]:
    """Fill each group of 128 lanes with as many whole clips of `frames` frames as fit, then zeros."""
    clips = LANES // frames
    x = fill(x, *x.shape[:-1], round_up(x.shape[-1], clips * frames))
    if clips * frames < LANES:
        x = x.reshape(*x.shape[:-1], -1, clips * frames)
        x = fill(x, *x.shape[:-1], LANES).reshape(*x.shape[:-2], -1)
    return x


def fill(x: Float[Array, "*N"], *sizes: int) -> Float[Array, "*N"]:
    """Zero-pad the end of each axis up to these sizes."""
    return jnp.pad(x, [(0, size - length) for size, length in zip(sizes, x.shape, strict=True)])


def rows_of_windows(x: Float[Array, "H W C F"], tile: Tile) -> Float[Array, "c J across columns F"]:
    """For each row and tile across, the columns that the tile's windows cover."""
    _, rows, columns = tile.sizes.kernel_size
    x = clips_on_lanes(x, tile.sizes.frames).transpose(2, 0, 1, 3)
    below = tile.all_rows - rows // 2 - x.shape[1]
    right = (tile.across - 1) * tile.width + tile.columns - columns // 2 - x.shape[2]
    x = jnp.pad(x, [(0, tile.sizes.channels - len(x)), (rows // 2, below), (columns // 2, right), (0, 0)])
    starts = range(0, tile.across * tile.width, tile.width)
    x = jnp.stack([x[:, :, i : i + tile.columns] for i in starts], axis=2)
    channels, number, _, _, frames = x.shape
    x = x.reshape(channels, number // tile.stacked, tile.stacked, tile.across, tile.columns, frames)
    return x.swapaxes(2, 3).reshape(*x.shape[:2], tile.across, tile.stacked * tile.columns, frames)


def banded(weights: Float[Array, "M G E"], tile: Tile) -> Float[Array, "G pixels*E entries"]:
    """Matrices from a tile's windows to the sums of each pixel."""
    moves, rows, columns = tile.sizes.kernel_size
    groups, outputs = weights.shape[1:]
    # Match rows and columns of a tile's windows with those of a pixel's window.
    row, y = np.ogrid[: tile.rows, : tile.height]
    column, x = np.ogrid[: tile.columns, : tile.width]
    down = jnp.asarray(row - y == np.arange(rows)[:, None, None], weights.dtype)
    across = jnp.asarray(column - x == np.arange(columns)[:, None, None], weights.dtype)
    weights = weights.reshape(moves, rows, columns, groups, outputs)
    matrix = jnp.einsum("thwge,hjy,wkx->gyxejtk", weights, down, across)
    matrix = matrix.reshape(groups, tile.pixels * outputs, -1, tile.stacked, moves, tile.columns)
    return matrix.swapaxes(3, 4).reshape(*matrix.shape[:2], tile.entries)


def blocks(operands: Operands, tile: Tile) -> Operands:
    """Block specification of each operand at a point of the grid: 128 frames, a column of tiles, and a tile in it."""
    maps = block_of_pixels(tile), block_of_rows(operands.key), block_of_rows(operands.value)
    return Operands(*maps, *map(whole, operands[3:]))


def block_of_pixels(tile: Tile) -> pl.BlockSpec:
    """Block specification of a tile of `H W L c F`."""
    shape = (tile.height, tile.width, tile.sizes.queries, tile.sizes.channels, LANES)
    return pl.BlockSpec(shape, lambda f, j, i: (i, j, 0, 0, f))


def block_of_results(tile: Tile) -> pl.BlockSpec:
    """Block specification of a tile of `H W c*L F`."""
    shape = (tile.height, tile.width, tile.sizes.channels * tile.sizes.queries, LANES)
    return pl.BlockSpec(shape, lambda f, j, i: (i, j, 0, f))


def block_of_rows(x: Any) -> pl.BlockSpec | None:
    """Block specification of the rows that a column of tiles covers in `c J across columns F`."""
    if x is None:
        return None
    # They change too rarely to be worth prefetching.
    shape = (*x.shape[:2], None, x.shape[3], LANES)
    return pl.BlockSpec(shape, lambda f, j, i: (0, 0, j, 0, f), pipeline_mode=pl.Buffered(1))


def whole(x: Any) -> pl.BlockSpec | None:
    """Block specification of a whole array, which stays on the chip."""
    return None if x is None else pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim, pipeline_mode=pl.Buffered(1))


def cost(query: Float[Array, "H W L c F"], tile: Tile, *, gradients: bool) -> dict[str, str]:
    """Metadata with a kernel's estimated cycles, under the key that XLA uses for its own estimates."""
    return {"estimated_cycles": str(round(query.shape[-1] // LANES * tile.cycles(gradients=gradients)))}
