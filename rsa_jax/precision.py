"""The precision of matrix products."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# Values of `matmul_precision`, and what they mean.
PRECISIONS = {
    "default": "as fast as the device can (TensorFloat-32 on NVIDIA GPUs since Ampere, bfloat16 on TPUs)",
    "tensorfloat32": "TensorFloat-32 or better",
    "float32": "true float32",
}


def describe_precision(dtype: str, precision: str) -> str:
    """Log sentence about the precision of a network's arithmetic.

    Args:
        dtype: of the activations.
        precision: one of `PRECISIONS`; it affects only float32 products.
    """
    if dtype == "float32":
        return f"Activations in float32; matrix products: {PRECISIONS[precision]}."
    return f"Activations and matrix products in {dtype}."


def with_precision(function: Callable[..., Any], precision: str) -> Callable[..., Any]:
    """The function, traced with this precision for float32 matrix products and convolutions.

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
