"""Numerical operations beneath the layers, and their implementations for each platform.

operations.py   the operations; choice.py chooses their implementation
equations.py    the paper's equations at one position or many; reference.py, on a feature map
conv.py         the transform through grouped convolutions
xla/            plain JAX: the default on GPUs, and the fallback for all others
cpu/            for CPUs
gpu/            kernels for NVIDIA GPUs, used only on request
tpu/            kernels for TPUs
devices.py      computation on the devices that share a batch
"""

from rsa_jax.ops.choice import IMPLEMENTATIONS, check_implementation, compiler_options, preferred
from rsa_jax.ops.devices import BATCH_AXIS
from rsa_jax.ops.operations import (
    apply_kernels,
    attend,
    attend_in_window,
    convolve,
    l2_normalize,
    linear,
    max_pool,
    normalize_batch,
    products,
    rsa,
    window_sums,
)
from rsa_jax.ops.xla.normalization import normalize

__all__ = [
    "BATCH_AXIS",
    "IMPLEMENTATIONS",
    "apply_kernels",
    "attend",
    "attend_in_window",
    "check_implementation",
    "compiler_options",
    "convolve",
    "l2_normalize",
    "linear",
    "max_pool",
    "normalize",
    "normalize_batch",
    "preferred",
    "products",
    "rsa",
    "window_sums",
]
