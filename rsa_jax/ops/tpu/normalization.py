"""L2 normalisation in the transform's order of axes."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.xla.frames import frames_first, frames_last


def l2_normalize(x: Float[Array, "B T H W *L C"]) -> Float[Array, "B T H W *L C"]:
    """x / sqrt(Σ x² + 1e-6) over the channels; the sum is taken in float32 or better.

    XLA would convert to float32 first, and then transpose twice as many bytes.
    """
    y = lax.optimization_barrier(frames_last(x))
    wide = y.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = (wide * lax.rsqrt(jnp.sum(wide * wide, axis=-2, keepdims=True) + 1e-6)).astype(x.dtype)
    return frames_first(y, x.shape[1])
