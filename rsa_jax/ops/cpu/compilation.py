"""Compiler options and scheduling barriers with which rematerialisation saves memory on a CPU."""

from jaxtyping import Array, Float

# For `jax.jit` of a training step. The CPU compiler drops barriers early. It then merges the recomputation of
# rematerialisation with the forward pass, and saves no memory.
COMPILER_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def not_before(x: Float[Array, "*N"], grad: Float[Array, "*M"]) -> Float[Array, "*N"]:
    """Return `x`, available to the compiler only once `grad` is.

    A gradient that recomputes an array instead of storing it needs this barrier. Without it, XLA would merge the
    recomputation with the forward pass, or run it early, and keep the result after all. `lax.optimization_barrier` is
    meant for this, but holds only under `COMPILER_OPTIONS`. Here an entry of `grad`, times zero, is added to `x`. The
    addition fuses with what follows (and makes all of `x` NaN if `grad` starts with a NaN or an infinity).
    """
    return x + 0 * grad[(0,) * grad.ndim].astype(x.dtype)
