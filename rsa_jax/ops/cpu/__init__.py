"""Implementations for CPUs: hand-written gradients, blocks that fit in the cache, and code that suits XLA's compiler.

Differentiable in reverse mode only.
"""

from rsa_jax.ops.cpu.attention import attend, attend_in_window
from rsa_jax.ops.cpu.compilation import COMPILER_OPTIONS
from rsa_jax.ops.cpu.convolution import convolve, linear
from rsa_jax.ops.cpu.kernels import apply_kernels
from rsa_jax.ops.cpu.normalization import l2_normalize, normalize_batch
from rsa_jax.ops.cpu.pooling import max_pool
from rsa_jax.ops.cpu.transform import products, rsa
from rsa_jax.ops.cpu.window_sums import window_sums

__all__ = [
    "COMPILER_OPTIONS",
    "apply_kernels",
    "attend",
    "attend_in_window",
    "convolve",
    "l2_normalize",
    "linear",
    "max_pool",
    "normalize_batch",
    "products",
    "rsa",
    "window_sums",
]
