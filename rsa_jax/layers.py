"""Layers of the network beside its transforms, with PyTorch's arithmetic where that differs from Flax's."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class SpatialConv(nnx.Module):
    """1 x k x k convolution of each frame, padded by k // 2 on both sides as PyTorch does, without bias.

    A 1 x 1 kernel is a matrix product: its gradient is several times faster than that of a convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        stride: int = 1,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.stride, self.dtype = stride, dtype
        msra = initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(msra(rngs.params(), (size, size, in_channels, out_channels)))

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """Convolves; h = ceil(H / stride), likewise w."""
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        size = kernel.shape[0]
        if size == 1:
            return x[:, :, :: self.stride, :: self.stride] @ kernel[0, 0]
        frames = x.reshape(-1, *x.shape[2:])
        y = lax.conv_general_dilated(
            frames,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(size // 2, size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def multiply_adds(self, shape: tuple[int, ...]) -> int:
        """Of a map of that shape, `B T H W C`."""
        batch, frames, height, width, _ = shape
        return batch * frames * -(-height // self.stride) * -(-width // self.stride) * self.kernel.size


class BatchNorm(nnx.Module):
    """Batch normalisation with PyTorch's running variance (unbiased), over all clips or over groups of them.

    Statistics, scale and bias are float32 (or wider) whatever the type of the input.

    Args:
        channels: of the last axis.
        clips: that share statistics in training; 0 for the whole batch. The published runs had 8 on each GPU.
        scale_init: initial scale.
    """

    momentum = 0.1
    epsilon = 1e-5

    def __init__(self, channels: int, *, clips: int = 0, scale_init: float = 1.0):
        self.clips = clips
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
            return self._normalize(x, self.mean[...], self.var[...])
        batch, clips = x.shape[0], self.clips or x.shape[0]
        if batch % clips:
            raise ValueError(f"batch_norm_clips: a batch of {batch} clips is no multiple of {clips}")
        groups = x.reshape(batch // clips, clips, *x.shape[1:])
        wide = groups.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = (1, 2, 3, 4)
        mean = jnp.mean(wide, axis=axes, keepdims=True)
        var = jnp.mean(jnp.square(wide - mean), axis=axes, keepdims=True)
        samples = clips * x.shape[1] * x.shape[2] * x.shape[3]
        self._update(mean.reshape(-1, x.shape[-1]), var.reshape(-1, x.shape[-1]) * samples / max(samples - 1, 1))
        return self._normalize(groups, mean, var).reshape(x.shape)

    def _update(self, mean: Float[Array, "G C"], var: Float[Array, "G C"]) -> None:
        """Groups count alike: their average stands for what each GPU would keep for itself."""
        for running, batch in ((self.mean, mean), (self.var, var)):
            new = (1 - self.momentum) * running[...] + self.momentum * jnp.mean(lax.stop_gradient(batch), axis=0)
            running[...] = new.astype(running.dtype)

    def _normalize(
        self, x: Float[Array, "*N C"], mean: Float[Array, "*#N C"], var: Float[Array, "*#N C"]
    ) -> Float[Array, "*N C"]:
        factor = lax.rsqrt(var + self.epsilon) * self.scale[...]
        return ((x - mean) * factor + self.bias[...]).astype(x.dtype)


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


def max_pool(x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w C"]:
    """1 x 3 x 3 maximum with stride 2, padded by 1 on both sides.

    As a maximum over strided slices: the gradient of `lax.reduce_window` is three times slower on a CPU.
    """
    height, width = x.shape[2:4]
    rows, columns = -(-height // 2), -(-width // 2)
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    taps = [x[:, :, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]
    y = taps[0]
    for tap in taps[1:]:
        y = jnp.maximum(y, tap)
    return y


def average_pool(x: Float[Array, "B T H W C"], stride: int) -> Float[Array, "B T h w C"]:
    """Mean of squares of `stride` pixels; at the edge, of the pixels that are there."""
    return nnx.avg_pool(x, (1, stride, stride), (1, stride, stride), padding="SAME", count_include_pad=False)
