"""Pallas kernels for NVIDIA GPUs, through Triton: from Ampere (compute capability 8.0) on.

sizes.py        sizes of a transform, and of the block that a program computes
positions.py    positions of a program, and the arrays that it loads for them
forward.py      the transform; backward.py, gradients at each position
window_sums.py  gradients of the window sums: of the feature maps, and of the weights
transform.py    the operation

The kernels do not use Mosaic GPU, Pallas' other compiler: windows are gathered from all over a feature map, for which
Mosaic GPU has no operation, and it does not support matrix products on Ampere. JAX will remove Triton from a later
version. The kernels would then move to jax_triton, which has the same operations, but no interpreter under JAX for
tests.

Differentiable in reverse mode only. On other platforms the kernels are interpreted, for tests.
"""

from typing import Any

import jax


def rsa(*args: Any, **kwargs: Any) -> Any:
    """The transform: see transform.py.

    Raises:
        ImportError: If this version of JAX has no Triton.
    """
    # Imported only on request: nothing else may depend on a module that JAX will remove.
    try:
        from rsa_jax.ops.gpu import transform
    except ImportError as error:
        raise ImportError(
            f'JAX {jax.__version__} cannot compile Pallas kernels through Triton; use implementation "xla"'
        ) from error
    return transform.rsa(*args, **kwargs)


__all__ = ["rsa"]
