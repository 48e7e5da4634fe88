"""Pallas kernels for the operations that they make cheaper than XLA's code, by the compiler's estimates.

tiles.py      the pixels that are computed at a time
operands.py   arrays in the order that the kernels take
forward.py    the transform of a tile; backward.py, its gradients
transform.py  the operation; normalization.py, L2 normalisation in the transform's order of axes

Differentiable in reverse mode only. On other platforms the kernels are interpreted, for tests.
"""

from rsa_jax.ops.tpu.normalization import l2_normalize
from rsa_jax.ops.tpu.transform import rsa

__all__ = ["l2_normalize", "rsa"]
