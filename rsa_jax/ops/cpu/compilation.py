"""Settings with which rematerialisation saves memory on a CPU."""

from jaxtyping import Array, Float

# For `jax.jit` of a training step. The CPU's compiler drops barriers early; then it merges what rematerialisation
# computes anew with what the forward pass computed, and saves nothing.
COMPILER_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def not_before(x: Float[Array, "*N"], grad: Float[Array, "*M"]) -> Float[Array, "*N"]:
    """`x`, but known to the compiler only when `grad` is.

    A gradient that computes an array anew instead of keeping it has to say so: XLA would merge the computation with
    that of the forward pass, or do it early, and keep the result after all. `lax.optimization_barrier` is meant for
    this, but holds only under `COMPILER_OPTIONS`. Here `grad` takes part, times zero, which fuses with what follows
    (and makes all of `x` NaN where `grad` starts with a NaN or an infinity).
    """
    return x + 0 * grad[(0,) * grad.ndim].astype(x.dtype)
