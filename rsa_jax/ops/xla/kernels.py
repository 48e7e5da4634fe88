"""Window sums with a kernel for each position."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.windows import KernelSize, pad


def apply_kernels(
    kernels: Float[Array, "M B T H W G"], values: Float[Array, "B T H W G c"], *, kernel_size: KernelSize
) -> Float[Array, "B T H W G c"]:
    """Σ_m kernels[m, n] values[n + m], one row of the window at a time.

    Needs the memory of the result, where `windows` would need M times the memory of the values.
    """
    padded = pad(values, kernel_size)
    batch, frames, height, width = values.shape[:4]
    rows = jnp.indices(kernel_size[:2]).reshape(2, -1).T

    @jax.checkpoint
    def add_row(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        (frame, row), kernels = inputs
        start = (0, frame, row, 0, 0, 0)
        moved = lax.dynamic_slice(padded, start, (batch, frames, height, *padded.shape[3:]))
        for i, kernel in enumerate(kernels):
            total += kernel[..., None] * lax.slice_in_dim(moved, i, i + width, axis=3)
        return total, None

    total = jnp.zeros(values.shape, jnp.promote_types(values.dtype, jnp.float32))
    by_rows = kernels.reshape(-1, kernel_size[2], *kernels.shape[1:])
    return lax.scan(add_row, total, (rows, by_rows))[0].astype(values.dtype)
