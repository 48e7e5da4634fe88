"""Layers of the network beside its transforms, with PyTorch's arithmetic where that differs from Flax's."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax import ops


class Linear(nnx.Module):
    """The same linear map at every position.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        bias: whether one is added.
        kernel_init: for the initial weights.
        dtype: of the computation; None for that of input and parameters. Parameters are float32 or wider.
        implementation: of `ops.linear`.
        rngs: for the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = False,
        kernel_init: initializers.Initializer = initializers.lecun_normal(),  # noqa: B008
        dtype: DTypeLike | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.implementation = dtype, implementation
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_channels, out_channels), float))
        self.bias = nnx.Param(initializers.zeros(rngs.params(), (out_channels,), float)) if bias else None

    def __call__(self, x: Float[Array, "*N C"]) -> Float[Array, "*N D"]:
        """The product with the kernel, and the bias added."""
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        y = ops.linear(x, kernel, implementation=self.implementation)
        return y if bias is None else y + bias


class SpatialConv(nnx.Module):
    """1 x k x k convolution of each frame, padded by k // 2 on both sides as PyTorch does, without bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        stride: int = 1,
        dtype: DTypeLike | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.stride, self.dtype, self.implementation = stride, dtype, implementation
        msra = initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(msra(rngs.params(), (size, size, in_channels, out_channels)))

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """Convolves; h = ceil(H / stride), likewise w."""
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return ops.convolve(x, kernel[None], stride=self.stride, implementation=self.implementation)

    def multiply_adds(self, shape: tuple[int, ...]) -> int:
        """Multiply-adds for a map of that shape, `B T H W C`."""
        batch, frames, height, width, _ = shape
        return batch * frames * -(-height // self.stride) * -(-width // self.stride) * self.kernel.size


class BatchNorm(nnx.Module):
    """Batch normalisation with PyTorch's running variance (unbiased), over all clips or over groups of them.

    Statistics, scale and bias are float32 (or wider) whatever the type of the input.

    Args:
        channels: of the last axis.
        clips: that share statistics in training; 0 for the whole batch. The published runs had 8 on each GPU.
        scale_init: initial scale.
        implementation: of `ops.normalize_batch`.
    """

    momentum = 0.1
    epsilon = 1e-5

    def __init__(self, channels: int, *, clips: int = 0, scale_init: float = 1.0, implementation: str | None = None):
        self.clips, self.implementation = clips, implementation
        self.use_running_average = False
        self.scale = nnx.Param(jnp.full(channels, scale_init, float))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Normalises; in training by the statistics of `x`, and moves the running ones towards them.

        Raises:
            ValueError: the batch is not a multiple of `clips`.
        """
        if self.use_running_average:
            statistics = self.mean[...], self.var[...]
            return ops.normalize(x, *statistics, self.scale[...], self.bias[...], self.epsilon)
        batch, clips = x.shape[0], self.clips or x.shape[0]
        if batch % clips:
            raise ValueError(f"batch_norm_clips: a batch of {batch} clips is no multiple of {clips}")
        y, mean, var = ops.normalize_batch(
            x,
            self.scale[...],
            self.bias[...],
            self.mean[...],
            groups=batch // clips,
            epsilon=self.epsilon,
            implementation=self.implementation,
        )
        samples = clips * math.prod(x.shape[1:-1])
        self._update(mean, var * samples / max(samples - 1, 1))
        return y

    def _update(self, mean: Float[Array, "G C"], var: Float[Array, "G C"]) -> None:
        """Groups count alike: their average stands for what each GPU would keep for itself."""
        for running, batch in ((self.mean, mean), (self.var, var)):
            new = (1 - self.momentum) * running[...] + self.momentum * jnp.mean(lax.stop_gradient(batch), axis=0)
            running[...] = new.astype(running.dtype)


class StochasticDepth(nnx.Module):
    """Drops a block's residual branch for some clips in training, and scales it up for the others.

    Args:
        survival: probability that a clip keeps the branch.
    """

    def __init__(self, survival: float):
        self.survival = survival
        self.deterministic = False

    def __call__(self, x: Float[Array, "B T H W C"], rngs: nnx.Rngs | None) -> Float[Array, "B T H W C"]:
        """The branch, or zeros."""
        if self.deterministic or self.survival == 1.0:
            return x
        if rngs is None:
            raise ValueError("stochastic depth in training needs rngs: model(clips, rngs=nnx.Rngs(key))")
        keep = jax.random.bernoulli(rngs.stochastic_depth(), self.survival, (x.shape[0], 1, 1, 1, 1))
        return x * (keep / self.survival).astype(x.dtype)


def average_pool(x: Float[Array, "B T H W C"], stride: int) -> Float[Array, "B T h w C"]:
    """Mean of squares of `stride` pixels; at the edge, of the pixels that are there."""
    return nnx.avg_pool(x, (1, stride, stride), (1, stride, stride), padding="SAME", count_include_pad=False)
