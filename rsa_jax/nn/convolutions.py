"""Convolutions in space and time."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax import ops
from rsa_jax.nn.layers import BatchNorm, SpatialConv

# A temporal shift moves 1 / SHIFT_DIVISOR of the channels by one frame into the past, and as many into the future.
SHIFT_DIVISOR = 8


class SpaceTimeConv(nnx.Module):
    """Convolution of `frames` x size x size, zero-padded, without bias: y[n] = Σ_m W_mᵀ x[n + m].

    Args:
        in_channels: of the input.
        out_channels: of the output.
        frames: kernel size in time; odd.
        size: kernel height and width; odd.
        dtype: of the computation; by default promoted from input and parameters. Parameters are float32.
        implementation: of all operations.
        rngs: for the initial weights, normal with variance 2 / fan-out (MSRA).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        frames: int = 3,
        size: int = 3,
        dtype: DTypeLike | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.implementation = dtype, implementation
        msra = initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(msra(rngs.params(), (frames, size, size, in_channels, out_channels)))

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W D"]:
        """Convolve with stride 1; the output has the input's frames, height and width."""
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return ops.convolve(x, kernel, implementation=self.implementation)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape, `B T H W C`."""
        batch, frames, height, width, _ = shape
        return batch * frames * height * width * self.kernel.size


class Conv2Plus1D(nnx.Module):
    """(2+1)D convolution (Tran et al., arXiv 1711.11248): 1x3x3, BatchNorm, ReLU, 3x1x1.

    y[n] = Σ_t W_tᵀ z[n + t] over three frames, z[n] = relu(BatchNorm(Σ_m V_mᵀ x[n + m])) over 3 x 3 pixels.
    z has ⌊27 C² / (9 C + 3 C)⌋ = ⌊2.25 C⌋ channels: the authors' rule, which matches the number of weights of a
    3x3x3 convolution.

    Args:
        channels: C, of input and output.
        batch_norm_clips: ghost batch size of BatchNorm in training; 0 for the whole batch.
        dtype: of the computation; by default promoted from input and parameters. Parameters are float32.
        implementation: of all operations.
        rngs: for the initial weights.
    """

    def __init__(
        self,
        channels: int,
        *,
        batch_norm_clips: int = 0,
        dtype: DTypeLike | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        middle = 27 * channels * channels // (9 * channels + 3 * channels)
        settings: dict[str, Any] = {"dtype": dtype, "implementation": implementation, "rngs": rngs}
        self.spatial = SpatialConv(channels, middle, 3, **settings)
        self.norm = BatchNorm(middle, clips=batch_norm_clips, implementation=implementation)
        self.temporal = SpaceTimeConv(middle, channels, frames=3, size=1, **settings)

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transform a feature map."""
        return self.temporal(nnx.relu(self.norm(self.spatial(x))))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape, `B T H W C`."""
        return self.spatial.macs(shape) + self.temporal.macs(shape)


class ShiftedConv(SpatialConv):
    """Temporal shift module, TSM (Lin et al., arXiv 1811.08383), before the block's own 1x3x3 convolution.

    y[n] = Σ_m W_mᵀ z[n + m] over 3 x 3 pixels, with z = `temporal_shift`(x). Its authors shift before the block's first
    convolution. Here the shift precedes the 1x3x3 convolution, the place of all transforms.

    Raises:
        ValueError: If there are too few channels to shift any.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs, **settings: Any):
        if channels < SHIFT_DIVISOR:
            raise ValueError(
                f"tsm: shifts one in {SHIFT_DIVISOR} channels, and the block has {channels}; raise model.width"
            )
        super().__init__(channels, channels, 3, rngs=rngs, **settings)

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Shift, then convolve."""
        return super().__call__(temporal_shift(x))


def temporal_shift(x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
    """Take 1/8 of the channels from the next frame and 1/8 from the previous one; leave the others unchanged.

    y[t, c] = x[t + 1, c] for c < C / 8, x[t - 1, c] for C / 8 <= c < C / 4, x[t, c] otherwise; zero outside the clip.
    """
    shifted, frames = x.shape[-1] // SHIFT_DIVISOR, x.shape[1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    following, previous = padded[:, 2:, ..., :shifted], padded[:, :frames, ..., shifted : 2 * shifted]
    return jnp.concatenate([following, previous, x[..., 2 * shifted :]], axis=-1)
