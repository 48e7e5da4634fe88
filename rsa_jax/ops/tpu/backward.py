"""Gradients of a tile of pixels: the equations of forward.py again, then their gradients.

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
    Interpret,
    Step,
    context_rows,
    latent_rows,
    make_step,
    matrix_product,
    shift,
    shifts,
    windows,
)
from rsa_jax.ops.tpu.operands import Operands, block_of_pixels, block_of_results, block_of_rows, blocks, cost, whole
from rsa_jax.ops.tpu.tiles import LANES, VMEM, Tile


class Buffers(NamedTuple):
    """Scratch memory of the kernel, in float32 or better. P is the number of pixels of a tile.

    Attributes:
        q: queries, `P L c 128`.
        z: latent kernels, `P L D 128`.
        codes: P1 + A, `c P*D 128`.
        sums: window sums of a group of channels, `8 P*(D+c) 128`.
        q_grad: gradient of the queries, `P L c 128`.
        y_grad: gradient of the results, `P L c 128`.
        ordered: gradient of the results, in the order in which it is given, `P c*L 128`.
        z_grad: gradient of the latent kernels, `P L D 128`.
        sums_grad: gradient of the window sums, `8 P*(D+c) 128`.
    """

    q: Any
    z: Any
    codes: Any
    sums: Any
    q_grad: Any
    y_grad: Any
    ordered: Any
    z_grad: Any
    sums_grad: Any


def backward(operands: Operands, y_grad: Float[Array, "H W c*L F"], *, tile: Tile, interpret: Interpret) -> Operands:
    """Gradients of the operands, given the gradient of the result. Those of weights are in float32 or better.

    Args:
        operands: see `Operands`.
        y_grad: gradient of the result, in the order of results.
        tile: the tile that the operands were made for.
        interpret: True or interpreter parameters, if the device is not a TPU.
    """
    wide = jnp.promote_types(y_grad.dtype, jnp.float32)
    transposed = [None if x is None else jnp.swapaxes(x, -1, -2) for x in (operands.H1, operands.H2G)]
    shapes, specs = _results(operands, tile, wide)
    (grads,) = pl.pallas_call(
        functools.partial(_kernel, tile=tile, interpret=interpret),
        out_shape=(shapes,),
        grid=(y_grad.shape[-1] // LANES, tile.across, tile.down),
        in_specs=[blocks(operands, tile), *map(whole, transposed), block_of_results(tile)],
        out_specs=(specs,),
        scratch_shapes=[_buffers(tile, wide)],
        # The grid is sequential: the gradients of weights are accumulated on the chip.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",) * 3, vmem_limit_bytes=VMEM),
        interpret=interpret,
        name="rsa_backward",
        metadata=cost(y_grad, tile, gradients=True),
    )(operands, *transposed, y_grad)

    H1, H2G = (None if x is None else jnp.swapaxes(x, -1, -2) for x in (grads.H1, grads.H2G))
    return grads._replace(H1=H1, H2G=H2G)


def _results(operands: Operands, tile: Tile, wide: Any) -> tuple[Operands, Operands]:
    """Shapes and block specifications of the gradients; those of matrices are transposed."""

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
    sizes = tile.sizes
    per_query = pltpu.VMEM((tile.pixels, sizes.queries, sizes.channels, LANES), wide)
    per_latent = pltpu.VMEM((tile.pixels, sizes.queries, sizes.latent, LANES), wide)
    sums = pltpu.VMEM((GROUP, tile.pixels * max(sizes.latent, sizes.sums), LANES), wide)
    return Buffers(
        q=per_query,
        z=per_latent,
        codes=pltpu.VMEM((sizes.channels, tile.pixels * sizes.latent, LANES), wide) if sizes.relation else None,
        sums=sums,
        q_grad=per_query if sizes.relation else None,
        y_grad=per_query,
        ordered=pltpu.VMEM((tile.pixels, sizes.channels * sizes.queries, LANES), wide),
        z_grad=per_latent,
        sums_grad=sums,
    )


def _kernel(
    operands: Operands,
    H1T: Any,
    H2GT: Any,
    y_grad_ref: Any,
    grads: Operands,
    buffers: Buffers,
    *,
    tile: Tile,
    interpret: Interpret,
) -> None:
    b, step = buffers, make_step(tile, interpret)
    first_tile = pl.program_id(2) == 0

    @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0) & first_tile)
    def _() -> None:
        _clear(*grads[3:])

    @pl.when(first_tile)
    def _() -> None:
        _clear(grads.key, grads.value)

    b.q[...] = operands.query[...].reshape(b.q.shape).astype(b.q.dtype)
    b.ordered[...] = y_grad_ref[...].reshape(b.ordered.shape).astype(b.ordered.dtype)

    def order(p: Array, query: Array, rows: Any) -> None:
        b.y_grad[p, query] = b.ordered[p, rows]

    step.for_results(order)
    _clear(b.z_grad)
    if operands.H1 is None:
        b.z[...] = b.q[...]
    else:
        _clear(b.z)
        step.for_groups(lambda first: _relate(first, operands, b, step))
    step.for_groups(lambda first: _aggregate(first, operands, H2GT, grads, b, step))
    q_grad = b.z_grad
    if operands.H1 is not None:
        step.for_groups(lambda first: _relate_backwards(first, operands, H1T, grads, b, step))
        q_grad = b.q_grad
    grads.query[...] = q_grad[...].reshape(grads.query.shape).astype(grads.query.dtype)


def _clear(*refs: Any) -> None:
    for ref in refs:
        if ref is not None:
            ref[...] = jnp.zeros(ref.shape, ref.dtype)


def _relate(first: Array, operands: Operands, b: Buffers, step: Step) -> None:
    """Add the contribution of a group of channels to the latent kernels, and keep their codes."""

    def channel(i: Array, c: Array) -> None:
        b.codes[c] = matrix_product(operands.H1[c], windows(operands.key, c, step))

    def pixel(p: Array) -> None:
        own = latent_rows(p, step.tile)
        codes = [b.codes[first + i, own] + operands.P1[first + i] for i in range(GROUP)]
        for i in range(GROUP):
            b.codes[first + i, own] = codes[i]

        def add(query: Array, _: None) -> None:
            rows = b.q[p, query, pl.ds(first, GROUP)]
            b.z[p, query] += sum(rows[i : i + 1] * codes[i] for i in range(GROUP))

        step.for_queries(add)

    step.for_channels(first, channel)
    step.for_pixels(pixel)


def _aggregate(first: Array, operands: Operands, H2GT: Any, grads: Operands, b: Buffers, step: Step) -> None:
    """Gradients of a group of channels of the value, of the weights applied to it, and of the latent kernels."""
    outputs = pl.ds(0, step.tile.pixels * step.tile.sizes.sums)

    def channel(i: Array, c: Array) -> None:
        b.sums[i, outputs] = matrix_product(operands.H2G[...], windows(operands.value, c, step))

    def pixel(p: Array) -> None:
        step.for_channels(first, lambda i, c: _aggregate_pixel(p, i, c, operands, grads, b, step))

    def channel_backwards(i: Array, c: Array) -> None:
        sums_grad = b.sums_grad[i, outputs].astype(operands.H2G.dtype)
        grads.H2G[...] += _outer_product(windows(operands.value, c, step), sums_grad)
        _spread(c, matrix_product(H2GT[...], sums_grad), grads.value, step)

    step.for_channels(first, channel)
    step.for_pixels(pixel)
    step.for_channels(first, channel_backwards)


def _aggregate_pixel(p: Array, i: Array, c: Array, operands: Operands, grads: Operands, b: Buffers, step: Step) -> None:
    """Gradients of the code and context of one channel of the value, with index i in the group and c overall."""
    own, other = latent_rows(p, step.tile), context_rows(p, step.tile)
    code = b.sums[i, own]
    if operands.identity is None:

        def add(query: Array, code_grad: Array) -> Array:
            u_grad = b.y_grad[p, query, pl.ds(c, 1)]
            b.z_grad[p, query] += u_grad * code
            return code_grad + u_grad * b.z[p, query]

        b.sums_grad[i, own] = step.for_queries(add, jnp.zeros_like(code))
        return
    context = b.sums[i, other] + operands.identity[c]

    def add_both(query: Array, sums_grad: tuple[Array, Array]) -> tuple[Array, Array]:
        z, y_grad = b.z[p, query], b.y_grad[p, query]
        u = jnp.sum(z * code, axis=0, keepdims=True)
        u_grad = jnp.sum(y_grad * context, axis=0, keepdims=True)
        b.z_grad[p, query] += u_grad * code
        return sums_grad[0] + u_grad * z, sums_grad[1] + u * y_grad

    code_grad, context_grad = step.for_queries(add_both, (jnp.zeros_like(code), jnp.zeros_like(context)))
    b.sums_grad[i, own] = code_grad
    b.sums_grad[i, other] = context_grad
    grads.identity[c] += context_grad


def _relate_backwards(first: Array, operands: Operands, H1T: Any, grads: Operands, b: Buffers, step: Step) -> None:
    """Gradients of a group of channels of query and key, and of their weights."""
    outputs = pl.ds(0, step.tile.pixels * step.tile.sizes.latent)

    def pixel(p: Array) -> None:
        step.for_channels(first, lambda i, c: pixel_and_channel(p, i, c))

    def pixel_and_channel(p: Array, i: Array, c: Array) -> None:
        own = latent_rows(p, step.tile)
        code = b.codes[c, own]

        def add(query: Array, code_grad: Array) -> Array:
            z_grad = b.z_grad[p, query]
            b.q_grad[p, query, pl.ds(c, 1)] = jnp.sum(z_grad * code, axis=0, keepdims=True)
            return code_grad + b.q[p, query, pl.ds(c, 1)] * z_grad

        code_grad = step.for_queries(add, jnp.zeros_like(code))
        b.sums_grad[i, own] = code_grad
        grads.P1[c] += code_grad

    def channel(i: Array, c: Array) -> None:
        sums_grad = b.sums_grad[i, outputs].astype(operands.H1.dtype)
        grads.H1[c] += _outer_product(windows(operands.key, c, step), sums_grad)
        _spread(c, matrix_product(H1T[c], sums_grad), grads.key, step)

    step.for_pixels(pixel)
    step.for_channels(first, channel)


def _outer_product(a: Float[Array, "E 128"], b: Float[Array, "O 128"]) -> Float[Array, "E O"]:
    """a bᵀ, in float32 or better."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=wide)


def _spread(channel: Array, windows_grad: Float[Array, "E 128"], rows: Any, step: Step) -> None:
    """Add the gradient of a tile's windows to that of the rows (see `windows`)."""
    tile = step.tile
    number, size = tile.rows // tile.stacked, tile.stacked * tile.columns
    parts = windows_grad.reshape(number, -1, size, LANES)
    shifted = [shift(parts[:, i].reshape(-1, LANES), -m, tile) for i, m in enumerate(shifts(tile))]
    rows[channel, pl.ds(step.row, number)] += sum(shifted[1:], shifted[0]).reshape(number, size, LANES)
