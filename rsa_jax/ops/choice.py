"""Chooses which implementation of an operation runs."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax

from rsa_jax.ops import cpu

# "reference": as the paper writes it. "conv": through grouped convolutions. "xla": plain JAX. "cpu", "gpu" and "tpu":
# for that platform.
IMPLEMENTATIONS = ("reference", "conv", "xla", "cpu", "gpu", "tpu")

# What a platform gets of an operation that has it; all others get "xla". By benchmarks/transform.py and train_step.py.
PREFERRED = {"cpu": "cpu"}
# TPUs whose VMEM (16 MiB) has no room for the kernels' windows and weights. Others have "tpu", by the compiler's
# estimates in benchmarks/accelerators.py. A choice that is left open does not know which TPU it will be.
SMALL_TPUS = ("TPU v2", "TPU v3", "TPU v4", "TPU v4 lite")


# Implementations of an operation, by name; "xla" is among them.
Table = Mapping[str, Callable[..., Any]]


def preferred(device: jax.Device) -> str:
    """The name of the implementation that suits a device, which need not be at hand."""
    if device.platform == "tpu":
        return "xla" if device.device_kind in SMALL_TPUS else "tpu"
    return PREFERRED.get(device.platform, "xla")


def check_implementation(name: str | None) -> None:
    """Raises a ValueError unless this is the name of an implementation, or None."""
    if name is not None and name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation: expected None or one of {IMPLEMENTATIONS}, got {name!r}")


def run(table: Table, name: str | None, *arrays: Any, **settings: Any) -> Any:
    """Calls the implementation of that name; without one, that for the platform the program is compiled for.

    To name it, by `preferred`, spares the compiler a choice, and is faster: programs of a known platform do.

    Args:
        table: of the operation.
        name: one of `IMPLEMENTATIONS`; an operation that does not have it takes "xla".
        arrays: arguments that are arrays, or trees of them.
        settings: all other arguments.

    Raises:
        ValueError: no operation has an implementation of that name.
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
    """The operation with these settings. The same object each time: JAX traces it once for each shape.

    Each platform has its own gradient, of the operation's arguments alone: JAX would hand over to it what the gradients
    of all platforms need, and XLA would keep that in memory.
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

    named.__name__ = default.__name__  # what profiles call it
    return jax.jit(named)


def compiler_options(platform: str) -> dict[str, str]:
    """For `jax.jit` of a training step on that platform.

    On a CPU, so that rematerialisation (`nnx.remat`) saves memory. On a GPU, so that what was rounded to bfloat16
    passes through memory as such; else XLA hands on the float32 of before, which is twice as much.
    """
    if platform == "cpu":
        return dict(cpu.COMPILER_OPTIONS)
    return {"xla_allow_excess_precision": "False"} if platform in ("gpu", "cuda") else {}
