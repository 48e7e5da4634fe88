"""The transform of a tile of pixels. Only query, key, value, weights and result pass through HBM.

For each pixel, with the codes A and B = (H2ᵀ X^V)ᵀ and the context X = (X^V)ᵀ G of one channel at a time:

    z[l, d] = Σ_c q[l, c] (P1 + A)[c, d],  u[l, c] = Σ_d z[l, d] B[c, d],  y[l, e] = Σ_c u[l, c] (I + X)[c, e]
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from rsa_jax.ops.tpu.operands import Operands, block_of_results, blocks, cost
from rsa_jax.ops.tpu.tiles import LANES, SUBLANES, VMEM, Tile

Interpret = bool | pltpu.InterpretParams
# Number of channels whose codes are on the chip at a time: a register of queries.
GROUP = SUBLANES


class Buffers(NamedTuple):
    """Scratch memory of the kernel, in float32 or better. P is the number of pixels of a tile.

    Attributes:
        q: queries, `P L c 128`.
        y: results, `P L c 128`.
        ordered: results in the order in which they are returned, `P c*L 128`.
        z: latent kernels, `P L D 128`.
        sums: window sums of a group of channels, `8 P*(D+c) 128`.
    """

    q: Any
    y: Any
    ordered: Any
    z: Any
    sums: Any


def forward(operands: Operands, *, tile: Tile, interpret: Interpret) -> Float[Array, "H W c*L F"]:
    """The transform by Eq. 12.

    Args:
        operands: see `Operands`.
        tile: the tile that the operands were made for.
        interpret: True or interpreter parameters, if the device is not a TPU.
    """
    query, sizes = operands.query, tile.sizes
    wide = jnp.promote_types(query.dtype, jnp.float32)
    per_query = pltpu.VMEM((tile.pixels, sizes.queries, sizes.channels, LANES), wide)
    len_results = sizes.channels * sizes.queries
    ordered = pltpu.VMEM((tile.pixels, len_results, LANES), wide)
    per_latent = pltpu.VMEM((tile.pixels, sizes.queries, sizes.latent, LANES), wide)
    sums = pltpu.VMEM((GROUP, tile.pixels * max(sizes.latent, sizes.sums), LANES), wide)
    return pl.pallas_call(
        functools.partial(_kernel, tile=tile, interpret=interpret),
        out_shape=jax.ShapeDtypeStruct((*query.shape[:2], len_results, query.shape[-1]), query.dtype),
        grid=(query.shape[-1] // LANES, tile.across, tile.down),
        in_specs=[blocks(operands, tile)],
        out_specs=block_of_results(tile),
        scratch_shapes=[Buffers(q=per_query, y=per_query, ordered=ordered, z=per_latent, sums=sums)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM
        ),
        interpret=interpret,
        name="rsa_forward",
        metadata=cost(query, tile, gradients=False),
    )(operands)


class Step(NamedTuple):
    """A point of a kernel's grid.

    Attributes:
        tile: the tile computed.
        row: index of the first row, or stack of two, that the tile's windows cover.
        unroll: whether loops over channels and queries are unrolled: fast to run on a TPU, slow to compile.
    """

    tile: Tile
    row: Array
    unroll: bool

    def for_groups(self, body: Callable[[Array], None]) -> None:
        """Run the body for the first channel of each group."""
        groups = self.tile.sizes.channels // GROUP
        lax.fori_loop(0, groups, lambda group, _: body(pl.multiple_of(group * GROUP, GROUP)), None)

    def for_channels(self, first: Array, body: Callable[[Array, Array], None]) -> None:
        """Run the body for each channel of a group, with its index in the group and overall."""
        lax.fori_loop(0, GROUP, lambda i, _: body(i, first + i), None, unroll=self.unroll)

    def for_pixels(self, body: Callable[[Array], None]) -> None:
        """Run the body for the index of each pixel."""
        lax.fori_loop(0, self.tile.pixels, lambda p, _: body(p), None)

    def for_queries(self, body: Callable[[Array, Any], Any], carry: Any = None) -> Any:
        """Run the body for the index of each query and the carry."""
        return lax.fori_loop(0, self.tile.sizes.queries, body, carry, unroll=self.unroll)

    def for_results(self, body: Callable[[Array, Array, Any], None]) -> None:
        """Run the body for each pixel and query, with the slice of its channels in the results of the pixel."""
        queries, channels = self.tile.sizes.queries, self.tile.sizes.channels

        def pixel(p: Array) -> None:
            self.for_queries(lambda query, _: body(p, query, pl.ds(query, channels, stride=queries)))

        self.for_pixels(pixel)


def make_step(tile: Tile, interpret: Interpret) -> Step:
    """The current point of a kernel's grid. Has to be called outside of loops."""
    return Step(tile, pl.program_id(2) * (tile.height // tile.stacked), unroll=not interpret)


def _kernel(operands: Operands, y_ref: Any, buffers: Buffers, *, tile: Tile, interpret: Interpret) -> None:
    q, y, ordered, z, sums = buffers
    step = make_step(tile, interpret)
    q[...] = operands.query[...].reshape(q.shape).astype(q.dtype)
    y[...] = jnp.zeros(y.shape, y.dtype)
    if operands.H1 is None:
        z[...] = q[...]
    else:
        z[...] = jnp.zeros(z.shape, z.dtype)
        step.for_groups(lambda first: _relate(first, operands, q, z, sums, step))
    step.for_groups(lambda first: _aggregate(first, operands, z, y, sums, step))

    def order(p: Array, query: Array, rows: Any) -> None:
        ordered[p, rows] = y[p, query]

    step.for_results(order)
    y_ref[...] = ordered[...].reshape(y_ref.shape).astype(y_ref.dtype)


def _relate(first: Array, operands: Operands, q: Any, z: Any, sums: Any, step: Step) -> None:
    """Add the contribution of a group of channels to the latent kernels."""
    outputs = pl.ds(0, step.tile.pixels * step.tile.sizes.latent)

    def channel(i: Array, c: Array) -> None:
        sums[i, outputs] = matrix_product(operands.H1[c], windows(operands.key, c, step))

    def pixel(p: Array) -> None:
        own = latent_rows(p, step.tile)
        codes = [sums[i, own] + operands.P1[first + i] for i in range(GROUP)]

        def add(query: Array, _: None) -> None:
            rows = q[p, query, pl.ds(first, GROUP)]
            z[p, query] += sum(rows[i : i + 1] * codes[i] for i in range(GROUP))

        step.for_queries(add)

    step.for_channels(first, channel)
    step.for_pixels(pixel)


def _aggregate(first: Array, operands: Operands, z: Any, y: Any, sums: Any, step: Step) -> None:
    """Add the contribution of a group of channels of the value to the results."""
    outputs = pl.ds(0, step.tile.pixels * step.tile.sizes.sums)

    def channel(i: Array, c: Array) -> None:
        sums[i, outputs] = matrix_product(operands.H2G[...], windows(operands.value, c, step))

    def pixel(p: Array) -> None:
        codes = [sums[i, latent_rows(p, step.tile)] for i in range(GROUP)]
        contexts = []
        if operands.identity is not None:
            contexts = [sums[i, context_rows(p, step.tile)] + operands.identity[first + i] for i in range(GROUP)]

        def add(query: Array, _: None) -> None:
            u = [jnp.sum(z[p, query] * code, axis=0, keepdims=True) for code in codes]
            if contexts:
                y[p, query] += sum(u[i] * contexts[i] for i in range(GROUP))
            else:
                y[p, query, pl.ds(first, GROUP)] = jnp.concatenate(u)

        step.for_queries(add)

    step.for_channels(first, channel)
    step.for_pixels(pixel)


def windows(rows: Any, channel: Array, step: Step) -> Float[Array, "E 128"]:
    """Windows of a tile, for one channel."""
    tile = step.tile
    number, size = tile.rows // tile.stacked, tile.stacked * tile.columns
    x = rows[channel, pl.ds(step.row, number)].reshape(-1, LANES)
    shifted = [shift(x, m, tile) for m in shifts(tile)]
    return jnp.concatenate([y[i * size : (i + 1) * size] for i in range(number) for y in shifted])


def shifts(tile: Tile) -> range:
    """Frames of a window, relative to its middle."""
    reach = tile.sizes.kernel_size[0] // 2
    return range(-reach, reach + 1)


def shift(x: Float[Array, "N 128"], frames: int, tile: Tile) -> Float[Array, "N 128"]:
    """x from `frames` frames later in the clip, and 0 outside the clip. The transpose is the shift by -frames."""
    if not frames:
        return x
    packed = pltpu.bitcast(x, jnp.uint32) if x.dtype.itemsize == 2 else x
    frame = lax.broadcasted_iota(jnp.int32, packed.shape, 1) % tile.sizes.frames + frames
    inside = (frame >= 0) & (frame < tile.sizes.frames)
    packed = jnp.where(inside, pltpu.roll(packed, -frames % LANES, 1), jnp.zeros_like(packed))
    return pltpu.bitcast(packed, x.dtype) if x.dtype.itemsize == 2 else packed


def matrix_product(a: Float[Array, "M K"], b: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """Matrix product a b, in float32 or better."""
    return jnp.dot(a, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def latent_rows(p: Array, tile: Tile) -> Any:
    """Slice of a pixel's code in the window sums of its tile."""
    size = tile.sizes.latent
    return pl.ds(pl.multiple_of(p * size, SUBLANES), size)


def context_rows(p: Array, tile: Tile) -> Any:
    """Slice of a pixel's context in the window sums of its tile."""
    size = tile.sizes.channels
    return pl.ds(pl.multiple_of(tile.pixels * tile.sizes.latent + p * size, SUBLANES), size)
