"""The transform of a tile of pixels. Nothing but query, windows, weights and result touches the chip's memory.

For each pixel, with the codes A and B = (H2ᵀ X^V)ᵀ and the context X = (X^V)ᵀ G of one channel at a time:

    z[l, d] = Σ_c q[l, c] (P1 + A)[c, d],  u[l, c] = Σ_d z[l, d] B[c, d],  y[l, e] = Σ_c u[l, c] (I + X)[c, e]
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from rsa_jax.ops.tpu.operands import Operands, block_of_pixels, blocks
from rsa_jax.ops.tpu.tiles import LANES, SUBLANES, VMEM, Tile

# Channels whose codes are on the chip at a time: a register of queries.
GROUP = SUBLANES


class Buffers(NamedTuple):
    """Memory of the kernel, in float32 or better. P is the number of pixels of a tile.

    Attributes:
        q: queries, `P L c 128`.
        y: results, `P L c 128`.
        z: kernels in latent form, `P L D 128`.
        sums: over the windows of a group of channels, `8 P*(D+c) 128`.
    """

    q: Any
    y: Any
    z: Any
    sums: Any


def forward(operands: Operands, *, tile: Tile, interpret: bool) -> Float[Array, "H W L c F"]:
    """The transform by Eq. 12.

    Args:
        operands: see `Operands`.
        tile: that they were made for.
        interpret: True where the device is no TPU.
    """
    query, problem = operands.query, tile.problem
    wide = jnp.promote_types(query.dtype, jnp.float32)
    per_query = pltpu.VMEM((tile.pixels, problem.queries, problem.channels, LANES), wide)
    per_latent = pltpu.VMEM((tile.pixels, problem.queries, problem.latent, LANES), wide)
    sums = pltpu.VMEM((GROUP, tile.pixels * max(problem.latent, problem.sums), LANES), wide)
    return pl.pallas_call(
        functools.partial(_kernel, tile=tile),
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        grid=(query.shape[-1] // LANES, tile.across, tile.down),
        in_specs=[blocks(operands, tile)],
        out_specs=block_of_pixels(tile),
        scratch_shapes=[Buffers(q=per_query, y=per_query, z=per_latent, sums=sums)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM
        ),
        interpret=interpret,
        name="rsa_forward",
    )(operands)


def _kernel(operands: Operands, y_ref: Any, buffers: Buffers, *, tile: Tile) -> None:
    q, y, z, sums = buffers
    row = pl.program_id(2) * (tile.height // tile.stacked)
    q[...] = operands.query[...].reshape(q.shape).astype(q.dtype)
    y[...] = jnp.zeros(y.shape, y.dtype)
    if operands.H1 is None:
        z[...] = q[...]
    else:
        z[...] = jnp.zeros(z.shape, z.dtype)
        for_groups(tile, lambda first: _relate(first, row, operands, q, z, sums, tile))
    for_groups(tile, lambda first: _aggregate(first, row, operands, z, y, sums, tile))
    y_ref[...] = y[...].reshape(y_ref.shape).astype(y_ref.dtype)


def _relate(first: Array, row: Array, operands: Operands, q: Any, z: Any, sums: Any, tile: Tile) -> None:
    """Adds what a group of channels contributes to the latent kernels."""
    outputs = tile.pixels * tile.problem.latent
    for i in range(GROUP):
        sums[i, :outputs] = matrix_product(operands.H1[first + i], windows(operands.key, first + i, row, tile))

    def pixel(p: Array) -> None:
        own = latent_rows(p, tile)
        codes = [sums[i, own] + operands.P1[first + i] for i in range(GROUP)]
        for query in range(tile.problem.queries):
            rows = q[p, query, pl.ds(first, GROUP)]
            z[p, query] += sum(rows[i : i + 1] * codes[i] for i in range(GROUP))

    for_pixels(tile, pixel)


def _aggregate(first: Array, row: Array, operands: Operands, z: Any, y: Any, sums: Any, tile: Tile) -> None:
    """Adds what a group of channels of the value contributes to the results."""
    for i in range(GROUP):
        outputs = tile.pixels * tile.problem.sums
        sums[i, :outputs] = matrix_product(operands.H2G[...], windows(operands.value, first + i, row, tile))

    def pixel(p: Array) -> None:
        codes = [sums[i, latent_rows(p, tile)] for i in range(GROUP)]
        contexts = []
        if operands.identity is not None:
            contexts = [sums[i, context_rows(p, tile)] + operands.identity[first + i] for i in range(GROUP)]
        for query in range(tile.problem.queries):
            u = [jnp.sum(z[p, query] * code, axis=0, keepdims=True) for code in codes]
            if contexts:
                y[p, query] += sum(u[i] * contexts[i] for i in range(GROUP))
            else:
                y[p, query, pl.ds(first, GROUP)] = jnp.concatenate(u)

    for_pixels(tile, pixel)


def windows(rows: Any, channel: Array, row: Array, tile: Tile) -> Float[Array, "E 128"]:
    """The windows of a tile, of one channel; `row` is the first that they meet."""
    number, size = tile.rows // tile.stacked, tile.stacked * tile.columns
    x = rows[channel, pl.ds(row, number)].reshape(-1, LANES)
    moved = [move(x, m, tile) for m in moves(tile)]
    return jnp.concatenate([y[i * size : (i + 1) * size] for i in range(number) for y in moved])


def moves(tile: Tile) -> range:
    """Frames of a window, seen from its middle."""
    reach = tile.problem.kernel_size[0] // 2
    return range(-reach, reach + 1)


def move(x: Float[Array, "N 128"], frames: int, tile: Tile) -> Float[Array, "N 128"]:
    """x at so many frames later, and 0 where the clip has none. Transposed by -frames."""
    if not frames:
        return x
    packed = pltpu.bitcast(x, jnp.uint32) if x.dtype.itemsize == 2 else x
    frame = lax.broadcasted_iota(jnp.int32, packed.shape, 1) % tile.problem.frames + frames
    inside = (frame >= 0) & (frame < tile.problem.frames)
    packed = jnp.where(inside, pltpu.roll(packed, -frames % LANES, 1), jnp.zeros_like(packed))
    return pltpu.bitcast(packed, x.dtype) if x.dtype.itemsize == 2 else packed


def matrix_product(a: Float[Array, "M K"], b: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """a b, in float32 or better."""
    return jnp.dot(a, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def latent_rows(p: Array, tile: Tile) -> Any:
    """Where the code of a pixel lies among the sums over its tile's windows."""
    size = tile.problem.latent
    return pl.ds(pl.multiple_of(p * size, SUBLANES), size)


def context_rows(p: Array, tile: Tile) -> Any:
    """Where the context of a pixel lies among the sums over its tile's windows."""
    size = tile.problem.channels
    return pl.ds(pl.multiple_of(tile.pixels * tile.problem.latent + p * size, SUBLANES), size)


def for_groups(tile: Tile, body: Any) -> None:
    """Runs the body for the first channel of each group."""
    lax.fori_loop(0, tile.problem.channels // GROUP, lambda group, _: body(pl.multiple_of(group * GROUP, GROUP)), None)


def for_pixels(tile: Tile, body: Any) -> None:
    """Runs the body for the number of each pixel of a tile."""
    lax.fori_loop(0, tile.pixels, lambda p, _: body(p), None)
