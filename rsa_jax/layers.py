"""Layers of the network beside its transforms, with PyTorch's arithmetic where that differs from Flax's."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax.compiler import not_before


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
        rngs: nnx.Rngs,
    ):
        self.stride, self.dtype = stride, dtype
        msra = initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(msra(rngs.params(), (size, size, in_channels, out_channels)))

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """Convolves; h = ceil(H / stride), likewise w."""
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return convolve_frames(x, kernel, self.stride)

    def multiply_adds(self, shape: tuple[int, ...]) -> int:
        """Of a map of that shape, `B T H W C`."""
        batch, frames, height, width, _ = shape
        return batch * frames * -(-height // self.stride) * -(-width // self.stride) * self.kernel.size


def convolve_frames(
    x: Float[Array, "B T H W C"], kernel: Float[Array, "k k C D"], stride: int = 1
) -> Float[Array, "B T h w D"]:
    """Convolution of each frame, padded by k // 2 on both sides.

    A 1 x 1 kernel is a matrix product: its gradient is several times faster than that of a convolution.
    """
    if kernel.shape[0] == 1:
        x = x[:, :, ::stride, ::stride]
        # Positions in one axis: XLA contracts it as it is for the gradient, and would copy several ones.
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)
    y = convolve(x.reshape(-1, *x.shape[2:]), kernel, stride)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def at_positions(layer: nnx.Linear, x: Float[Array, "*N C"]) -> Float[Array, "*N D"]:
    """The layer at every position, with all of them in one axis: see `convolve_frames`."""
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def _convolve(x: Float[Array, "N H W C"], kernel: Float[Array, "k k C D"], stride: int) -> Float[Array, "N h w D"]:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(size // 2, size // 2) for size in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Float[Array, "N H W C"], kernel: Float[Array, "k k C D"], stride: int) -> Float[Array, "N h w D"]:
    """Convolution padded by k // 2 on both sides. Differentiable in reverse mode alone."""
    return _convolve(x, kernel, stride)


def _convolve_backward(
    stride: int, residuals: tuple[Array, Array], grad: Float[Array, "N h w D"]
) -> tuple[Float[Array, "N H W C"], Float[Array, "k k C D"]]:
    x, kernel = residuals
    (grad_x,) = jax.linear_transpose(lambda x: _convolve(x, kernel, stride), x)(grad)

    def as_convolution(x: Float[Array, "N H W C"], grad: Float[Array, "N h w D"]) -> Float[Array, "k k C D"]:
        return jax.linear_transpose(lambda kernel: _convolve(x, kernel, stride), kernel)(grad)[0]

    def as_products(x: Float[Array, "N H W C"], grad: Float[Array, "N h w D"]) -> Float[Array, "k k C D"]:
        """One product for each row of the kernel."""
        size, (rows, columns) = kernel.shape[0], grad.shape[1:3]
        around = (size // 2, size // 2)
        x = jnp.pad(not_before(x, grad), ((0, 0), around, around, (0, 0)))
        x = jnp.concatenate([x[:, :, j : j + stride * (columns - 1) + 1 : stride] for j in range(size)], axis=-1)
        flat = grad.reshape(-1, grad.shape[-1])
        inputs = [x[:, i : i + stride * (rows - 1) + 1 : stride].reshape(-1, x.shape[-1]) for i in range(size)]
        return jnp.stack([part.T @ flat for part in inputs]).reshape(kernel.shape)

    # XLA's CPU compiler makes a convolution with a window as large as the map of it, and transposes both for that.
    return grad_x, lax.platform_dependent(x, grad, cpu=as_products, default=as_convolution)


convolve.defvjp(lambda x, kernel, stride: (_convolve(x, kernel, stride), (x, kernel)), _convolve_backward)


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
            statistics = self.mean[...], self.var[...]
            return normalize(x, *statistics, self.scale[...], self.bias[...], self.epsilon)
        batch, clips = x.shape[0], self.clips or x.shape[0]
        if batch % clips:
            raise ValueError(f"batch_norm_clips: a batch of {batch} clips is no multiple of {clips}")
        groups = x.reshape(batch // clips, clips * x.shape[1], -1, x.shape[-1])
        y, mean, var = normalize_batch(groups, self.scale[...], self.bias[...], self.epsilon)
        samples = groups.shape[1] * groups.shape[2]
        self._update(mean, var * samples / max(samples - 1, 1))
        return y.reshape(x.shape)

    def _update(self, mean: Float[Array, "G C"], var: Float[Array, "G C"]) -> None:
        """Groups count alike: their average stands for what each GPU would keep for itself."""
        for running, batch in ((self.mean, mean), (self.var, var)):
            new = (1 - self.momentum) * running[...] + self.momentum * jnp.mean(lax.stop_gradient(batch), axis=0)
            running[...] = new.astype(running.dtype)


def normalize(
    x: Float[Array, "*N C"],
    mean: Float[Array, "*#N C"],
    var: Float[Array, "*#N C"],
    scale: Float[Array, "C"],
    bias: Float[Array, "C"],
    epsilon: float,
) -> Float[Array, "*N C"]:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, in the type of `x`."""
    return ((x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_batch(
    x: Float[Array, "G T N C"], scale: Float[Array, "C"], bias: Float[Array, "C"], epsilon: float
) -> tuple[Float[Array, "G T N C"], Float[Array, "G C"], Float[Array, "G C"]]:
    """Normalises by the mean and the (biased) variance of each group, and returns them.

    They are for the running statistics alone: no gradient passes through them. Differentiable in reverse mode alone:
    XLA on the CPU takes twice as long for the sums of its own gradient.
    """
    return _normalize_batch_forward(x, scale, bias, epsilon)[0]


def _normalize_batch_forward(
    x: Float[Array, "G T N C"], scale: Float[Array, "C"], bias: Float[Array, "C"], epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
    var = jnp.mean(jnp.square(wide - mean), axis=(1, 2), keepdims=True)
    y = normalize(x, mean, var, scale, bias, epsilon)
    return (y, mean[:, 0, 0], var[:, 0, 0]), (x, scale, mean, lax.rsqrt(var + epsilon))


def _normalize_batch_backward(
    epsilon: float, residuals: tuple[Array, ...], grads: tuple[Array, Array, Array]
) -> tuple[Float[Array, "G T N C"], Float[Array, "C"], Float[Array, "C"]]:
    x, scale, mean, inverse = residuals
    grad, centred = grads[0].astype(mean.dtype), x - mean
    number = x.shape[1] * x.shape[2]

    def total(x: Float[Array, "G T N C"]) -> Float[Array, "G 1 1 C"]:
        # As a product, which XLA on the CPU fuses with what it sums; frame by frame, lest rounding adds up.
        ones = jnp.ones(x.shape[:-1], x.dtype)
        frames = jnp.einsum("gtn,gtnc->gtc", ones, x, precision=lax.Precision.HIGHEST)
        return jnp.sum(frames, axis=1)[:, None, None]

    grad_bias, grad_scale = total(grad), total(grad * centred) * inverse
    factor = scale * inverse
    grad_x = factor * grad - (factor * grad_bias + centred * (factor * inverse * grad_scale)) / number
    grad_scale, grad_bias = (jnp.sum(part, axis=(0, 1, 2)).astype(scale.dtype) for part in (grad_scale, grad_bias))
    return grad_x.astype(x.dtype), grad_scale, grad_bias


normalize_batch.defvjp(_normalize_batch_forward, _normalize_batch_backward)


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


@jax.custom_vjp
def max_pool(x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w C"]:
    """1 x 3 x 3 maximum with stride 2, padded by 1 on both sides. Differentiable in reverse mode alone.

    The gradient goes to the first of equal maxima, as in PyTorch. XLA's own, of `lax.reduce_window`, is many times
    slower on a CPU.
    """
    return _max_pool_forward(x)[0]


def _max_pool_forward(x: Float[Array, "B T H W C"]) -> tuple[Float[Array, "B T h w C"], tuple[Array, tuple[int, ...]]]:
    """The maxima, and which of its window's nine positions each comes from."""
    rows, columns = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    taps = [padded[:, :, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]
    y = functools.reduce(jnp.maximum, taps)
    first = jnp.full(y.shape, 8, jnp.int8)
    for index in reversed(range(8)):
        first = jnp.where(taps[index] == y, jnp.int8(index), first)
    return y, (first, x.shape)


def _max_pool_backward(
    residuals: tuple[Array, tuple[int, ...]], grad: Float[Array, "B T h w C"]
) -> tuple[Float[Array, "B T H W C"]]:
    first, shape = residuals
    rows, columns = first.shape[2:4]
    around = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
    first, grad = jnp.pad(first, around, constant_values=-1), jnp.pad(grad, around)
    # Along either axis, an odd pixel of the padded map is the middle of one window; an even one is the end of a
    # window and the start of the next. Pairs: where the window is, and which position in it the pixel has.
    windows = (((0, 2), (1, 0)), ((1, 1),))

    def pixels(row: int, column: int) -> Float[Array, "B T h+1 w+1 C"]:
        parts = []
        for i, tap_i in windows[row]:
            for j, tap_j in windows[column]:
                part = (slice(None), slice(None), slice(i, i + rows + 1), slice(j, j + columns + 1))
                parts.append(jnp.where(first[part] == 3 * tap_i + tap_j, grad[part], 0))
        return functools.reduce(jnp.add, parts)

    y = jnp.stack([jnp.stack([pixels(row, column) for column in (0, 1)], axis=4) for row in (0, 1)], axis=3)
    y = y.reshape(*y.shape[:2], 2 * (rows + 1), 2 * (columns + 1), -1)
    return (y[:, :, 1 : shape[2] + 1, 1 : shape[3] + 1],)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average_pool(x: Float[Array, "B T H W C"], stride: int) -> Float[Array, "B T h w C"]:
    """Mean of squares of `stride` pixels; at the edge, of the pixels that are there."""
    return nnx.avg_pool(x, (1, stride, stride), (1, stride, stride), padding="SAME", count_include_pad=False)
