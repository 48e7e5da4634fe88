"""Convolutions and matrix products at every position."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rsa_jax.ops.cpu.compilation import not_before
from rsa_jax.ops.xla import convolution as xla


def linear(x: Float[Array, "*N C"], kernel: Float[Array, "C D"]) -> Float[Array, "*N D"]:
    """Matrix product, with positions in one axis: for the gradient, XLA contracts one in place, but copies several."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def convolve(
    x: Float[Array, "B T H W C"], kernel: Float[Array, "t k k C D"], *, stride: int
) -> Float[Array, "B T h w D"]:
    """Convolution, as a 2D convolution of each frame with its neighbours' channels stacked onto its own.

    The result is the same, but XLA's gradient of a 3D convolution takes many times as long. A 1 x 1 kernel is a matrix
    product, whose gradient is several times faster than that of a convolution.
    """
    frames, size, _, inputs, outputs = kernel.shape
    if frames > 1:
        x, kernel = stack_frames(x, frames), jnp.moveaxis(kernel, 0, 2)
    kernel = kernel.reshape(size, size, frames * inputs, outputs)
    if size == 1:
        return linear(x[:, :, ::stride, ::stride], kernel[0, 0])
    y = convolve_images(x.reshape(-1, *x.shape[2:]), kernel, stride)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def stack_frames(x: Float[Array, "B T H W C"], number: int) -> Float[Array, "B T H W number*C"]:
    """Channels of each frame and its neighbours, concatenated in order of time; zeros outside the clip."""
    around, frames = number // 2, x.shape[1]
    padded = jnp.pad(x, ((0, 0), (around, around), (0, 0), (0, 0), (0, 0)))
    return jnp.concatenate([padded[:, i : i + frames] for i in range(number)], axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_images(
    x: Float[Array, "N H W C"], kernel: Float[Array, "k k C D"], stride: int
) -> Float[Array, "N h w D"]:
    """2D convolution, padded by k // 2 on both sides."""
    return xla.convolve_images(x, kernel, stride)


def _backward(
    stride: int, residuals: tuple[Array, Array], grad: Float[Array, "N h w D"]
) -> tuple[Float[Array, "N H W C"], Float[Array, "k k C D"]]:
    """Gradients of the input and the kernel. The kernel's is one matrix product for each row of the kernel.

    XLA would compute it as a convolution with a window as large as the feature map, and transpose both for that.
    """
    x, kernel = residuals
    (grad_x,) = jax.linear_transpose(lambda x: xla.convolve_images(x, kernel, stride), x)(grad)
    size, (rows, columns) = kernel.shape[0], grad.shape[1:3]
    around = (size // 2, size // 2)
    x = jnp.pad(not_before(x, grad), ((0, 0), around, around, (0, 0)))
    x = jnp.concatenate([x[:, :, j : j + stride * (columns - 1) + 1 : stride] for j in range(size)], axis=-1)
    flat = grad.reshape(-1, grad.shape[-1])
    inputs = [x[:, i : i + stride * (rows - 1) + 1 : stride].reshape(-1, x.shape[-1]) for i in range(size)]
    return grad_x, jnp.stack([part.T @ flat for part in inputs]).reshape(kernel.shape)


def _forward(
    x: Float[Array, "N H W C"], kernel: Float[Array, "k k C D"], stride: int
) -> tuple[Float[Array, "N h w D"], tuple[Array, Array]]:
    return xla.convolve_images(x, kernel, stride), (x, kernel)


convolve_images.defvjp(_forward, _backward)
