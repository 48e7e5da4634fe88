"""Pallas kernels for NVIDIA GPUs, through Triton: from Ampere (compute capability 8.0) on.

sizes.py        the sizes of a transform, and of the block that a program computes
positions.py    a program's positions, and what it loads for them
forward.py      the transform; backward.py, gradients at each position
window_sums.py  gradients of the sums over windows: of the maps, and of the weights
transform.py    the operation

Through Triton and not Mosaic GPU, Pallas' other compiler: windows are gathered from all over a map, for which that one
has no operation, and it knows no matrix products of Ampere. JAX will remove it from a later version, and the kernels
would go to jax_triton, which has the same operations, but no interpreter under JAX to test them by.

Differentiable in reverse mode only. On other platforms the kernels are interpreted, for tests.
"""

from typing import Any

import jax


def rsa(*args: Any, **kwargs: Any) -> Any:
    """The transform: see transform.py.

    Raises:
        RuntimeError: this version of JAX has no Triton.
    """
    # Imported when it is asked for: nothing else shall depend on what JAX will remove.
    try:
        from rsa_jax.ops.gpu import transform
    except ImportError as error:
        raise RuntimeError(
            f'implementation "gpu": JAX {jax.__version__} does not compile Pallas by Triton; take "xla"'
        ) from error
    return transform.rsa(*args, **kwargs)


__all__ = ["rsa"]
