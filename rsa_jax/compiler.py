"""Options for XLA: scheduling barriers for rematerialisation, and the precision of matrix products."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float


def not_before(x: Float[Array, "*N"], grad: Float[Array, "*M"]) -> Float[Array, "*N"]:
    """`x`, but known to the compiler only when `grad` is.

    A gradient that computes an array anew instead of keeping it has to say so: XLA would merge the computation with
    that of the forward pass, or do it early, and keep the result after all. `lax.optimization_barrier` is meant for
    this, but the CPU's compiler drops it unless it is told not to. There `grad` takes part, times zero, which fuses
    with what follows (and makes all of `x` NaN where `grad` starts with a NaN or an infinity).
    """

    def dependent(x: Array, grad: Array) -> Array:
        return x + 0 * grad[(0,) * grad.ndim].astype(x.dtype)

    def barrier(x: Array, grad: Array) -> Array:
        return lax.optimization_barrier((x, grad))[0]

    return lax.platform_dependent(x, grad, cpu=dependent, default=barrier)


def compiler_options() -> dict[str, str]:
    """For `jax.jit` of a training step: the CPU's compiler is to keep barriers, without which it merges what
    rematerialisation computes anew with what the forward pass computed, and saves nothing."""
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if jax.default_backend() == "cpu" else {}


# Values of `matmul_precision`, and what they mean.
PRECISIONS = {
    "default": "as fast as the device can (TensorFloat-32 on NVIDIA GPUs since Ampere, bfloat16 on TPUs)",
    "tensorfloat32": "TensorFloat-32 or better",
    "float32": "true float32",
}


def describe_precision(dtype: str, precision: str) -> str:
    """The types of a network's arithmetic, as a sentence for the log.

    Args:
        dtype: of the activations.
        precision: one of `PRECISIONS`; it changes products of float32 alone.
    """
    if dtype == "float32":
        return f"Activations in float32; matrix products: {PRECISIONS[precision]}."
    return f"Activations and matrix products in {dtype}."


def with_precision(function: Callable[..., Any], precision: str) -> Callable[..., Any]:
    """The function, traced with this precision of its float32 matrix products and convolutions.

    Args:
        function: to trace, such as a training step before `jax.jit`.
        precision: one of `PRECISIONS`.
    """
    if precision == "default":
        return function

    @functools.wraps(function)
    def precise(*args: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return function(*args)

    return precise
