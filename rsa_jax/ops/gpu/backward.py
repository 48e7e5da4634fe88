"""Gradients at each position: of the query, and of the window sums. The notation is that of forward.py.

With u and z recomputed, for a channel c and the gradient y' of the result:

    X'[c, e] = Σ_l u[l, c] y'[l, e],      u'[l, c] = Σ_e y'[l, e] (I + X)[c, e],
    B'[c, d] = Σ_l u'[l, c] z[l, d],      z'[l, d] = Σ_c u'[l, c] B[c, d],
    A'[c, d] = Σ_l q[l, c] z'[l, d],      q'[l, c] = Σ_d z'[l, d] (P1 + A)[c, d]
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from rsa_jax.ops.gpu.positions import (
    Block,
    Operands,
    key_code,
    latent_kernels,
    load,
    numbered_block,
    store,
    value_codes,
)
from rsa_jax.ops.gpu.sizes import WARPS, Sizes


class Gradients(NamedTuple):
    """Gradients at each position, each as a flat array. Parts that the transform does not have are None.

    Attributes:
        query: gradient of the query, in the query's order.
        key_sums: gradient of A, `H W C D F`, where F counts the frames of all clips and padding.
        value_sums: gradient of H2ᵀ X^V and the relational context, `H W C D+C F`.
        P1: gradient of P1 from each program, `N C D`, in float32.
        identity: gradient of the identity from each program, `N C C`, in float32.
    """

    query: Any
    key_sums: Any
    value_sums: Any
    P1: Any
    identity: Any


def backward(operands: Operands, y_grad: Float[Array, " N"], *, sizes: Sizes, interpret: bool) -> Gradients:
    """Gradients of a transform at each position, given the gradient of its result."""
    programs = sizes.pixels * sizes.blocks
    all_sums = sizes.pixels * sizes.channels * sizes.all_frames
    dtype, wide = operands.query.dtype, jnp.float32
    out_shape = Gradients(
        jax.ShapeDtypeStruct(operands.query.shape, dtype),
        None if operands.H1 is None else jax.ShapeDtypeStruct((all_sums * sizes.latent,), dtype),
        jax.ShapeDtypeStruct((all_sums * sizes.sums,), dtype),
        None if operands.P1 is None else jax.ShapeDtypeStruct((programs * sizes.channels * sizes.latent,), wide),
        None if operands.identity is None else jax.ShapeDtypeStruct((programs * sizes.channels**2,), wide),
    )
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        functools.partial(_kernel, sizes=sizes),
        out_shape=out_shape,
        grid=(programs,),
        in_specs=[jax.tree.map(lambda _: anywhere, operands), anywhere],
        out_specs=jax.tree.map(lambda _: anywhere, out_shape),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="rsa_backward",
    )(operands, y_grad)


def _kernel(operands: Operands, y_grad_ref: Any, *outputs: Any, sizes: Sizes) -> None:
    grads = Gradients(*outputs)
    at = numbered_block(pl.program_id(0), sizes)
    z = latent_kernels(operands, at)
    y_grad = None if operands.G is None else load(y_grad_ref, at.all_results())

    def of_value(channel: Array, z_grad: Float[Array, "L D F"]) -> Float[Array, "L D F"]:
        code, context = value_codes(operands, at, channel)
        if y_grad is None or context is None:
            u_grad = load(y_grad_ref, at.results(channel))
        else:
            u = jnp.sum(z * code[None], axis=1)
            context_grad = jnp.sum(u[:, None] * y_grad, axis=0)
            _store_sums(grads.value_sums, context_grad, channel, at, range(sizes.latent, sizes.sums), sizes.sums)
            if grads.identity is not None:
                _store_total(grads.identity, context_grad, channel, at, sizes.channels)
            u_grad = jnp.sum(y_grad * context[None], axis=1)
        code_grad = jnp.sum(u_grad[:, None] * z, axis=0)
        _store_sums(grads.value_sums, code_grad, channel, at, range(sizes.latent), sizes.sums)
        return z_grad + u_grad[:, None] * code[None]

    z_grad = lax.fori_loop(0, sizes.channels, of_value, jnp.zeros_like(z))
    if operands.H1 is None:
        store(grads.query, at.all_rows(), z_grad)
        return

    def of_key(channel: Array, _: None) -> None:
        query = load(operands.query, at.rows(channel))
        code_grad = jnp.sum(query[:, None] * z_grad, axis=0)
        _store_sums(grads.key_sums, code_grad, channel, at, range(sizes.latent), sizes.latent)
        if grads.P1 is not None:
            _store_total(grads.P1, code_grad, channel, at, sizes.latent)
        store(grads.query, at.rows(channel), jnp.sum(z_grad * key_code(operands, at, channel)[None], axis=1))

    lax.fori_loop(0, sizes.channels, of_key, None)


def _store_sums(x: Any, numbers: Float[Array, "E F"], channel: Array, at: Block, rows: range, length: int) -> None:
    """Write `rows` of the `length` rows of a channel's gradients. Padding gets 0."""
    sizes, row = at.sizes, jnp.arange(len(numbers))[:, None]
    index = ((at.pixel * sizes.channels + channel) * length + rows.start + row) * sizes.all_frames + at.place
    store(x, (index, jnp.broadcast_to(row < len(rows), index.shape)), numbers)


def _store_total(x: Any, numbers: Float[Array, "E F"], channel: Array, at: Block, length: int) -> None:
    """Write the sum over a program's frames, to be added to the sums of other programs."""
    row = jnp.arange(len(numbers))
    index = (at.number * at.sizes.channels + channel) * length + row
    store(x, (index, row < length), jnp.sum(numbers, axis=1))
