"""Convolutions and matrix products at every position."""

from jax import lax
from jaxtyping import Array, Float


def linear(x: Float[Array, "*N C"], kernel: Float[Array, "C D"]) -> Float[Array, "*N D"]:
    """Matrix product at every position."""
    return x @ kernel


def convolve(
    x: Float[Array, "B T H W C"], kernel: Float[Array, "t k k C D"], *, stride: int
) -> Float[Array, "B T h w D"]:
    """Convolution; a 2D convolution if the kernel has a single frame."""
    if kernel.shape[0] == 1:
        y = convolve_images(x.reshape(-1, *x.shape[2:]), kernel[0], stride)
        return y.reshape(*x.shape[:2], *y.shape[1:])
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, stride, stride),
        padding=[(size // 2, size // 2) for size in kernel.shape[:3]],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )


def convolve_images(
    x: Float[Array, "N H W C"], kernel: Float[Array, "k k C D"], stride: int
) -> Float[Array, "N h w D"]:
    """2D convolution, padded by k // 2 on both sides."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(size // 2, size // 2) for size in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
