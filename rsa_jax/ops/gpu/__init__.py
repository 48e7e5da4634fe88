"""Pallas kernels for NVIDIA GPUs, through Triton: from Ampere (compute capability 8.0) on.

sizes.py        the sizes of a transform, and of the block that a program computes
positions.py    a program's positions, and what it loads for them
forward.py      the transform; backward.py, gradients at each position
window_sums.py  gradients of the sums over windows: of the maps, and of the weights
transform.py    the operation

Differentiable in reverse mode only. On other platforms the kernels are interpreted, for tests.
"""

from rsa_jax.ops.gpu.transform import rsa

__all__ = ["rsa"]
