"""Choice of an operation's implementation."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax

from rsa_jax.ops import cpu

# "reference": as written in the paper. "conv": through grouped convolutions. "xla": plain JAX. "cpu", "gpu" and "tpu":
# for that platform.
IMPLEMENTATIONS = ("reference", "conv", "xla", "cpu", "gpu", "tpu")

# Default implementation by platform, for operations that have it; otherwise "xla". Measured by benchmarks/transform.py
# and train_step.py.
PREFERRED = {"cpu": "cpu"}
# TPUs whose VMEM (16 MiB) is too small for the kernels' windows and weights. Others prefer "tpu", by the compiler's
# estimates in benchmarks/accelerators.py. If no implementation is named, the kind of TPU is unknown, and "xla" runs.
SMALL_TPUS = ("TPU v2", "TPU v3", "TPU v4", "TPU v4 lite")


# Implementations of an operation, by name; always includes "xla".
Table = Mapping[str, Callable[..., Any]]


def preferred(device: jax.Device) -> str:
    """Name of the implementation that suits a device. The device need not be attached."""
    if device.platform == "tpu":
        return "xla" if device.device_kind in SMALL_TPUS else "tpu"
    return PREFERRED.get(device.platform, "xla")


def check_implementation(name: str | None) -> None:
    """Raise ValueError unless `name` is the name of an implementation or None."""
    if name is not None and name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation: expected None or one of {IMPLEMENTATIONS}, got {name!r}")


def run(table: Table, name: str | None, *arrays: Any, **settings: Any) -> Any:
    """Call the implementation `name`; with None, the one for the platform that the program is compiled for.

    Programs for a known platform name it, by `preferred`: this spares the compiler a choice, and is faster.

    Args:
        table: implementations of the operation.
        name: one of `IMPLEMENTATIONS`; "xla" is used if the operation does not have it.
        arrays: arguments that are arrays or trees of arrays.
        settings: all other arguments.

    Raises:
        ValueError: If no operation has an implementation of that name.
    """
    check_implementation(name)
    if name is not None:
        return table.get(name, table["xla"])(*arrays, **settings)
    special = tuple((platform, table[other]) for platform, other in PREFERRED.items() if other in table)
    return _by_platform(table["xla"], special, tuple(settings.items()))(*arrays)


@functools.cache
def _by_platform(
    default: Callable[..., Any],
    special: tuple[tuple[str, Callable[..., Any]], ...],
    settings: tuple[tuple[str, Any], ...],
) -> Callable[..., Any]:
    """The operation with these settings. Cached, so that JAX traces it once for each shape.

    Each platform has its own gradient, which takes only the operation's arguments. Otherwise JAX would pass on the
    residuals of all platforms' gradients, and XLA would keep them in memory.
    """

    def choose(make: Callable[[Callable[..., Any]], Callable[..., Any]], *arrays: Any) -> Any:
        implementations = {
            platform: make(functools.partial(function, **dict(settings)))
            for platform, function in (("default", default), *special)
        }
        return lax.platform_dependent(*arrays, **implementations)

    @jax.custom_vjp
    def operation(*arrays: Any) -> Any:
        return choose(lambda function: function, *arrays)

    def forward(*arrays: Any) -> tuple[Any, Any]:
        return operation(*arrays), arrays

    def backward(arrays: Any, grad: Any) -> Any:
        return choose(lambda function: lambda arrays, grad: jax.vjp(function, *arrays)[1](grad), arrays, grad)

    operation.defvjp(forward, backward)

    def named(*arrays: Any) -> Any:
        return operation(*arrays)

    named.__name__ = default.__name__  # shown in profiles
    return jax.jit(named)


def compiler_options(platform: str) -> dict[str, str]:
    """Compiler options for `jax.jit` of a training step on a platform.

    On a CPU, they let rematerialisation (`nnx.remat`) save memory. On a GPU, they make XLA store values that were
    rounded to bfloat16 as bfloat16; otherwise it stores the float32 values from before rounding, twice the bytes.
    """
    if platform == "cpu":
        return dict(cpu.COMPILER_OPTIONS)
    return {"xla_allow_excess_precision": "False"} if platform in ("gpu", "cuda") else {}
