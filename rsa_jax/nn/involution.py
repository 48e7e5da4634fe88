"""Involution as a Flax layer."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax import ops
from rsa_jax.nn.layers import BatchNorm, Linear
from rsa_jax.ops.windows import KernelSize, check_kernel_size


class Involution(nnx.Module):
    """Involution (Li et al., arXiv 2103.06255) in space and time.

    y[n, c] = Σ_m κ[n, m, g] x[n + m, c] with the group g of channel c, and κ[n] = W1 relu(BatchNorm(W0 x[n])) + b.
    A kernel depends only on the features at its position. The channels of a group share it. There is neither key nor
    value.

    Parameters: `reduce` W0 [C, C / r], `norm`, `span` W1 [C / r, M C / group_channels] and b.

    Args:
        channels: of input and output.
        kernel_size: window in frames, height, width; odd numbers. It may exceed the feature map.
        group_channels: number of channels that share a kernel; must divide `channels`.
        reduction: r; must divide `channels`.
        batch_norm_clips: ghost batch size of BatchNorm in training; 0 for the whole batch.
        dtype: of the computation; by default promoted from input and parameters. Parameters are float32.
        implementation: of all operations.
        rngs: for the initial weights.

    Raises:
        ValueError: If an argument is invalid; the message names it.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: KernelSize = (5, 7, 7),
        group_channels: int = 16,
        reduction: int = 4,
        batch_norm_clips: int = 0,
        dtype: DTypeLike | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        check_kernel_size(kernel_size)
        for name, number in (("group_channels", group_channels), ("reduction", reduction)):
            if number < 1 or channels % number:
                raise ValueError(f"{name}: expected a divisor of the {channels} channels, got {number}")
        self.kernel_size: KernelSize = (kernel_size[0], kernel_size[1], kernel_size[2])
        self.groups = channels // group_channels
        hidden = channels // reduction
        self.implementation = implementation
        settings: dict[str, Any] = {"dtype": dtype, "implementation": implementation, "rngs": rngs}
        self.reduce = Linear(channels, hidden, **settings)
        self.norm = BatchNorm(hidden, clips=batch_norm_clips, implementation=implementation)
        self.span = Linear(hidden, math.prod(kernel_size) * self.groups, bias=True, **settings)

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transform a feature map."""
        kernels = self.span(nnx.relu(self.norm(self.reduce(x))))
        kernels = kernels.reshape(*x.shape[:-1], -1, self.groups)
        values = x.astype(kernels.dtype).reshape(*x.shape[:-1], self.groups, -1)
        settings: dict[str, Any] = {"kernel_size": self.kernel_size, "implementation": self.implementation}
        y = ops.apply_kernels(jnp.moveaxis(kernels, -2, 0), values, **settings)
        return y.reshape(x.shape)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape, `B T H W C`."""
        window_sum = math.prod(self.kernel_size) * shape[-1]
        return math.prod(shape[:-1]) * (self.reduce.kernel.size + self.span.kernel.size + window_sum)
