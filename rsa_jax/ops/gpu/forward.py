"""The transform. Everything between query, key, value and result stays in registers.

For each position, with the codes A and B = (H2ᵀ X^V)ᵀ and the context X = (X^V)ᵀ G of one channel at a time:

    z[l, d] = Σ_c q[l, c] (P1 + A)[c, d],  u[l, c] = Σ_d z[l, d] B[c, d],  y[l, e] = Σ_c u[l, c] (I + X)[c, e]
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from rsa_jax.ops.gpu.positions import (
    Operands,
    latent_kernels,
    numbered_block,
    store,
    value_codes,
)
from rsa_jax.ops.gpu.sizes import WARPS, Sizes


def forward(operands: Operands, *, sizes: Sizes, interpret: bool) -> Float[Array, " N"]:
    """The transform by Eq. 12, `B T H W C L` as a flat array."""
    return pl.pallas_call(
        functools.partial(_kernel, sizes=sizes),
        out_shape=jax.ShapeDtypeStruct(operands.query.shape, operands.query.dtype),
        grid=(sizes.pixels * sizes.blocks,),
        in_specs=[jax.tree.map(lambda _: pl.BlockSpec(memory_space=pl.ANY), operands)],
        out_specs=pl.BlockSpec(memory_space=pl.ANY),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="rsa_forward",
    )(operands)


def _kernel(operands: Operands, y_ref: Any, *, sizes: Sizes) -> None:
    at = numbered_block(pl.program_id(0), sizes)
    z = latent_kernels(operands, at)

    def aggregate(channel: Array, y: Any) -> Any:
        code, context = value_codes(operands, at, channel)
        u = jnp.sum(z * code[None], axis=1)
        if context is None:
            store(y_ref, at.results(channel), u)
            return None
        return y + u[:, None] * context[None]

    y = None
    if operands.G is not None:
        y = jnp.zeros((sizes.query_block, sizes.channel_block, sizes.frame_block), jnp.float32)
    y = lax.fori_loop(0, sizes.channels, aggregate, y)
    if operands.G is not None:
        store(y_ref, at.all_results(), y)
