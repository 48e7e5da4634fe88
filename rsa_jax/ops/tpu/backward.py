"""The gradients of a tile of pixels: the equations of forward.py again, then backwards.

gu[l, c] = Σ_e gy[l, e] (I + X)[c, e]    gX[c, e] = Σ_l u[l, c] gy[l, e]
gz[l, d] = Σ_c gu[l, c] B[c, d]          gB[c, d] = Σ_l gu[l, c] z[l, d]
gq[l, c] = Σ_d gz[l, d] (P1 + A)[c, d]   gA[c, d] = Σ_l q[l, c] gz[l, d]
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from rsa_jax.ops.tpu.forward import (
    GROUP,
    context_rows,
    for_groups,
    for_pixels,
    latent_rows,
    matrix_product,
    move,
    moves,
    windows,
)
from rsa_jax.ops.tpu.operands import Operands, block_of_pixels, block_of_rows, blocks, whole
from rsa_jax.ops.tpu.tiles import LANES, VMEM, Tile


class Buffers(NamedTuple):
    """Memory of the kernel, in float32 or better. P is the number of pixels of a tile.

    Attributes:
        q: queries, `P L c 128`.
        z: kernels in latent form, `P L D 128`.
        codes: P1 + A, `c P*D 128`.
        sums: over the windows of a group of channels, `8 P*(D+c) 128`.
        q_grad: gradient of the queries, `P L c 128`.
        y_grad: likewise, of the results.
        z_grad: likewise, of the latent kernels.
        sums_grad: likewise, of the sums.
    """

    q: Any
    z: Any
    codes: Any
    sums: Any
    q_grad: Any
    y_grad: Any
    z_grad: Any
    sums_grad: Any


def backward(operands: Operands, y_grad: Float[Array, "H W L c F"], *, tile: Tile, interpret: bool) -> Operands:
    """The gradients of the operands, given that of the result; those of weights in float32 or better.

    Args:
        operands: see `Operands`.
        y_grad: in their order.
        tile: that they were made for.
        interpret: True where the device is no TPU.
    """
    wide = jnp.promote_types(y_grad.dtype, jnp.float32)
    transposed = [None if x is None else jnp.swapaxes(x, -1, -2) for x in (operands.H1, operands.H2G)]
    shapes, specs = _results(operands, tile, wide)
    block = block_of_pixels(tile)
    (grads,) = pl.pallas_call(
        functools.partial(_kernel, tile=tile),
        out_shape=(shapes,),
        grid=(y_grad.shape[-1] // LANES, tile.across, tile.down),
        in_specs=[blocks(operands, tile), *map(whole, transposed), block],
        out_specs=(specs,),
        scratch_shapes=[_buffers(tile, wide)],
        # In order: weights' gradients are added up on the chip.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",) * 3, vmem_limit_bytes=VMEM),
        interpret=interpret,
        name="rsa_backward",
    )(operands, *transposed, y_grad)

    H1, H2G = (None if x is None else jnp.swapaxes(x, -1, -2) for x in (grads.H1, grads.H2G))
    return grads._replace(H1=H1, H2G=H2G)


def _results(operands: Operands, tile: Tile, wide: Any) -> tuple[Operands, Operands]:
    """Shapes and blocks of the gradients; those of matrices are transposed."""

    def like(x: Any, transposed: bool = False) -> jax.ShapeDtypeStruct | None:
        if x is None:
            return None
        return jax.ShapeDtypeStruct((*x.shape[:-2], x.shape[-1], x.shape[-2]) if transposed else x.shape, wide)

    query, key, value, H1, H2G, P1, identity = operands
    shapes = Operands(
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        like(key),
        like(value),
        like(H1, transposed=True),
        like(H2G, transposed=True),
        like(P1),
        like(identity),
    )
    maps = block_of_pixels(tile), block_of_rows(key), block_of_rows(value)
    return shapes, Operands(*maps, *map(whole, shapes[3:]))


def _buffers(tile: Tile, wide: Any) -> Buffers:
    problem = tile.problem
    per_query = pltpu.VMEM((tile.pixels, problem.queries, problem.channels, LANES), wide)
    per_latent = pltpu.VMEM((tile.pixels, problem.queries, problem.latent, LANES), wide)
    sums = pltpu.VMEM((GROUP, tile.pixels * max(problem.latent, problem.sums), LANES), wide)
    return Buffers(
        q=per_query,
        z=per_latent,
        codes=pltpu.VMEM((problem.channels, tile.pixels * problem.latent, LANES), wide) if problem.relation else None,
        sums=sums,
        q_grad=per_query if problem.relation else None,
        y_grad=per_query,
        z_grad=per_latent,
        sums_grad=sums,
    )


def _kernel(
    operands: Operands, H1T: Any, H2GT: Any, y_grad_ref: Any, grads: Operands, buffers: Buffers, *, tile: Tile
) -> None:
    b, first_tile = buffers, pl.program_id(2) == 0
    row = pl.program_id(2) * (tile.height // tile.stacked)

    @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0) & first_tile)
    def _() -> None:
        _clear(*grads[3:])

    @pl.when(first_tile)
    def _() -> None:
        _clear(grads.key, grads.value)

    b.q[...] = operands.query[...].reshape(b.q.shape).astype(b.q.dtype)
    b.y_grad[...] = y_grad_ref[...].reshape(b.y_grad.shape).astype(b.y_grad.dtype)
    _clear(b.z_grad)
    if operands.H1 is None:
        b.z[...] = b.q[...]
    else:
        _clear(b.z)
        for_groups(tile, lambda first: _relate(first, row, operands, b, tile))
    for_groups(tile, lambda first: _aggregate(first, row, operands, H2GT, grads, b, tile))
    q_grad = b.z_grad
    if operands.H1 is not None:
        for_groups(tile, lambda first: _relate_backwards(first, row, operands, H1T, grads, b, tile))
        q_grad = b.q_grad
    grads.query[...] = q_grad[...].reshape(grads.query.shape).astype(grads.query.dtype)


def _clear(*refs: Any) -> None:
    for ref in refs:
        if ref is not None:
            ref[...] = jnp.zeros(ref.shape, ref.dtype)


def _relate(first: Array, row: Array, operands: Operands, b: Buffers, tile: Tile) -> None:
    """Adds what a group of channels contributes to the latent kernels, and keeps their codes."""
    for i in range(GROUP):
        b.codes[first + i] = matrix_product(operands.H1[first + i], windows(operands.key, first + i, row, tile))

    def pixel(p: Array) -> None:
        own = latent_rows(p, tile)
        codes = [b.codes[first + i, own] + operands.P1[first + i] for i in range(GROUP)]
        for i in range(GROUP):
            b.codes[first + i, own] = codes[i]
        for query in range(tile.problem.queries):
            rows = b.q[p, query, pl.ds(first, GROUP)]
            b.z[p, query] += sum(rows[i : i + 1] * codes[i] for i in range(GROUP))

    for_pixels(tile, pixel)


def _aggregate(
    first: Array, row: Array, operands: Operands, H2GT: Any, grads: Operands, b: Buffers, tile: Tile
) -> None:
    """Gradients of a group of channels of the value, of what it is multiplied by, and of the latent kernels."""
    outputs = tile.pixels * tile.problem.sums
    for i in range(GROUP):
        b.sums[i, :outputs] = matrix_product(operands.H2G[...], windows(operands.value, first + i, row, tile))

    def pixel(p: Array) -> None:
        own, other = latent_rows(p, tile), context_rows(p, tile)
        for i in range(GROUP):
            code = b.sums[i, own]
            code_grad = jnp.zeros(code.shape, code.dtype)
            if operands.identity is not None:
                context = b.sums[i, other] + operands.identity[first + i]
                context_grad = jnp.zeros(context.shape, context.dtype)
            for query in range(tile.problem.queries):
                z, y_grad = b.z[p, query], b.y_grad[p, query]
                if operands.identity is None:
                    u_grad = b.y_grad[p, query, pl.ds(first + i, 1)]
                else:
                    u = jnp.sum(z * code, axis=0, keepdims=True)
                    context_grad += u * y_grad
                    u_grad = jnp.sum(y_grad * context, axis=0, keepdims=True)
                code_grad += u_grad * z
                b.z_grad[p, query] += u_grad * code
            b.sums_grad[i, own] = code_grad
            if operands.identity is not None:
                b.sums_grad[i, other] = context_grad
                grads.identity[first + i] += context_grad

    for_pixels(tile, pixel)
    for i in range(GROUP):
        sums_grad = b.sums_grad[i, :outputs].astype(operands.H2G.dtype)
        grads.H2G[...] += _outer_product(windows(operands.value, first + i, row, tile), sums_grad)
        _spread(first + i, matrix_product(H2GT[...], sums_grad), grads.value, row, tile)


def _relate_backwards(
    first: Array, row: Array, operands: Operands, H1T: Any, grads: Operands, b: Buffers, tile: Tile
) -> None:
    """Gradients of a group of channels of query and key, and of their weights."""

    def pixel(p: Array) -> None:
        own = latent_rows(p, tile)
        for i in range(GROUP):
            code = b.codes[first + i, own]
            code_grad = jnp.zeros(code.shape, code.dtype)
            for query in range(tile.problem.queries):
                z_grad = b.z_grad[p, query]
                b.q_grad[p, query, pl.ds(first + i, 1)] = jnp.sum(z_grad * code, axis=0, keepdims=True)
                code_grad += b.q[p, query, pl.ds(first + i, 1)] * z_grad
            b.sums_grad[i, own] = code_grad
            grads.P1[first + i] += code_grad

    for_pixels(tile, pixel)
    for i in range(GROUP):
        sums_grad = b.sums_grad[i, : tile.pixels * tile.problem.latent].astype(operands.H1.dtype)
        grads.H1[first + i] += _outer_product(windows(operands.key, first + i, row, tile), sums_grad)
        _spread(first + i, matrix_product(H1T[first + i], sums_grad), grads.key, row, tile)


def _outer_product(a: Float[Array, "E 128"], b: Float[Array, "O 128"]) -> Float[Array, "E O"]:
    """a bᵀ, in float32 or better."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=wide)


def _spread(channel: Array, windows_grad: Float[Array, "E 128"], rows: Any, row: Array, tile: Tile) -> None:
    """Adds the gradient of a tile's windows to that of the rows; see `windows`."""
    number, size = tile.rows // tile.stacked, tile.stacked * tile.columns
    parts = windows_grad.reshape(number, -1, size, LANES)
    moved = [move(parts[:, i].reshape(-1, LANES), -m, tile) for i, m in enumerate(moves(tile))]
    rows[channel, pl.ds(row, number)] += sum(moved[1:], moved[0]).reshape(number, size, LANES)
