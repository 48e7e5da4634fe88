"""Kernels for TPUs, of the operations for which they were found to cost less than what XLA makes of "xla".

tiles.py      the pixels that are computed at a time
operands.py   arrays in the order that the kernels take
forward.py    the transform of a tile; backward.py, its gradients
transform.py  the operation

Differentiable in reverse mode alone. On other platforms the kernels are interpreted, for tests.
"""

from rsa_jax.ops.tpu.normalization import l2_normalize
from rsa_jax.ops.tpu.transform import rsa

__all__ = ["l2_normalize", "rsa"]
