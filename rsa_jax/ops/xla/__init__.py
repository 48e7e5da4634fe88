"""Plain JAX implementations, for platforms that have no better one. Differentiable in forward and reverse mode."""

from rsa_jax.ops.xla.attention import attend, attend_in_window
from rsa_jax.ops.xla.convolution import convolve, linear
from rsa_jax.ops.xla.kernels import apply_kernels
from rsa_jax.ops.xla.normalization import l2_normalize, normalize, normalize_batch
from rsa_jax.ops.xla.pooling import max_pool
from rsa_jax.ops.xla.transform import products, rsa
from rsa_jax.ops.xla.window_sums import window_sums

__all__ = [
    "apply_kernels",
    "attend",
    "attend_in_window",
    "convolve",
    "l2_normalize",
    "linear",
    "max_pool",
    "normalize",
    "normalize_batch",
    "products",
    "rsa",
    "window_sums",
]
