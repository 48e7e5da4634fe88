"""The functions beneath the layers: what they compute, and how each platform computes it.

operations.py   the operations; choice.py chooses how they are computed
equations.py    the paper's equations at one position or many; reference.py, on a map
conv.py         the transform through grouped convolutions
xla/            plain JAX, for GPUs, and for what the others do not have
cpu/            for CPUs
gpu/            kernels for NVIDIA GPUs, which have to be asked for
tpu/            kernels for TPUs
devices.py      devices that share a batch
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
