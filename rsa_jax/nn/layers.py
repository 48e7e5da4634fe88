"""Network layers other than transforms, with PyTorch's arithmetic where it differs from Flax's."""

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
    """Linear layer applied at every position.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        bias: whether to add a bias.
        kernel_init: for the initial weights.
        dtype: of the computation; by default promoted from input and parameters. Parameters are float32 or wider.
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
        """Product with the kernel, plus the bias."""
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
        """Convolve each frame; h = ceil(H / stride), w = ceil(W / stride)."""
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return ops.convolve(x, kernel[None], stride=self.stride, implementation=self.implementation)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape, `B T H W C`."""
        batch, frames, height, width, _ = shape
        return batch * frames * -(-height // self.stride) * -(-width // self.stride) * self.kernel.size


class BatchNorm(nnx.Module):
    """Batch normalisation over all clips or ghost batches, with PyTorch's (unbiased) running variance.

    Statistics, scale and bias are float32 (or wider) for any input dtype.

    Args:
        channels: of the last axis.
        clips: ghost batch size in training; 0 for the whole batch. The published runs had 8 clips per GPU.
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
        """Normalise `x`: in training by its own statistics, which update the running ones, else by the running ones.

        Raises:
            ValueError: If the batch size is not a multiple of `clips`.
        """
        if self.use_running_average:
            statistics = self.mean[...], self.var[...]
            return ops.normalize(x, *statistics, self.scale[...], self.bias[...], self.epsilon)
        batch, clips = x.shape[0], self.clips or x.shape[0]
        if batch % clips:
            raise ValueError(f"batch_norm_clips: a batch of {batch} clips is not a multiple of {clips}")
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
        """Update running statistics by the unweighted mean over ghost batches.

        The published run kept separate running statistics on each GPU.
        """
        for running, batch in ((self.mean, mean), (self.var, var)):
            new = (1 - self.momentum) * running[...] + self.momentum * jnp.mean(lax.stop_gradient(batch), axis=0)
            running[...] = new.astype(running.dtype)


class StochasticDepth(nnx.Module):
    """Stochastic depth: drop a block's residual branch for random clips in training, scale it up for the others.

    Args:
        keep_prob: keep probability of the branch, per clip.
    """

    def __init__(self, keep_prob: float):
        self.keep_prob = keep_prob
        self.deterministic = False

    def __call__(self, x: Float[Array, "B T H W C"], rngs: nnx.Rngs | None) -> Float[Array, "B T H W C"]:
        """The branch divided by its keep probability, or zeros for clips that drop it.

        Raises:
            ValueError: If `rngs` is missing in training.
        """
        if self.deterministic or self.keep_prob == 1.0:
            return x
        if rngs is None:
            raise ValueError("stochastic depth in training needs rngs: model(clips, rngs=nnx.Rngs(key))")
        keep = jax.random.bernoulli(rngs.stochastic_depth(), self.keep_prob, (x.shape[0], 1, 1, 1, 1))
        return x * (keep / self.keep_prob).astype(x.dtype)


def softmax_over_positions(x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
    """Softmax of each channel over the positions of a clip, computed in float32 or better."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.nn.softmax(wide, axis=(1, 2, 3)).astype(x.dtype)


def average_pool(x: Float[Array, "B T H W C"], stride: int) -> Float[Array, "B T h w C"]:
    """Mean over `stride` x `stride` pixels; at the edge, over the pixels inside the feature map."""
    return nnx.avg_pool(x, (1, stride, stride), (1, stride, stride), padding="SAME", count_include_pad=False)
