"""Sums over the space-time windows of a map, on which every form of the transform rests.

A window is the block of M = m_t * m_h * m_w positions around a position; outside of the map there are zeros.
Its positions are counted row by row: frame, height, width. All maps are channels last, `B T H W C`.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

KernelSize = tuple[int, int, int]


def windows(x: Float[Array, "B T H W C"], kernel_size: KernelSize) -> Float[Array, "B T H W M C"]:
    """The window of every position, written out: M times the memory of `x`."""
    _, frames, height, width, _ = x.shape
    x = _pad(x, kernel_size)
    shape = (*x.shape[:1], frames, height, width, -1, x.shape[-1])
    # One axis after the other: m_t + m_h + m_w slices to compile instead of their product.
    for axis, size, length in zip((3, 2, 1), reversed(kernel_size), (width, height, frames), strict=True):
        slices = [lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(size)]
        x = jnp.stack(slices, axis=4)
    return x.reshape(shape)


def correlate_conv(
    x: Float[Array, "B T H W C"], weights: Float[Array, "M C E"], kernel_size: KernelSize
) -> Float[Array, "B T H W C E"]:
    """Σ_m x[n + m, c] weights[m, c, e] as a convolution of C groups.

    Where the channels share their weights (`weights` is [M, 1, E]), they join the batch instead.
    """
    batch, frames, height, width, channels = x.shape
    groups, outputs = weights.shape[1:]
    if groups == 1:
        x = jnp.moveaxis(x, -1, 1).reshape(batch * channels, frames, height, width, 1)
    y = lax.conv_general_dilated(
        x,
        weights.reshape(*kernel_size, 1, groups * outputs),
        window_strides=(1, 1, 1),
        padding=[(size // 2, size // 2) for size in kernel_size],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=groups,
    )
    if groups == 1:
        return jnp.moveaxis(y.reshape(batch, channels, frames, height, width, outputs), 1, -2)
    return y.reshape(batch, frames, height, width, channels, outputs)


def correlate_banded(
    x: Float[Array, "B T H W C"], weights: Float[Array, "M C E"], kernel_size: KernelSize
) -> Float[Array, "B T H W C E"]:
    """The same sum as plain matrix products, forward and in both gradients.

    `b` neighbouring outputs of a row depend on `b + m_w - 1` inputs of each row of the window; as a matrix,
    the kernel is a band there. The products waste the zeros beside the band and save the convolution.
    """
    batch, frames, height, width, channels = x.shape
    size_t, size_h, size_w = kernel_size
    groups, outputs = weights.shape[1:]
    block = _block(width)
    blocks = -(-width // block)
    span = block + size_w - 1

    rows = jnp.moveaxis(_pad(x, kernel_size, right=blocks * block - width), -1, 0)  # C B T+ H+ W+
    rows = jnp.stack([rows[..., i * block : i * block + span] for i in range(blocks)], axis=-2)
    rows = jnp.concatenate([rows[:, :, :, h : h + height] for h in range(size_h)], axis=-1)  # C B T+ H i k
    band = _band(weights.reshape(size_t, size_h, size_w, groups, outputs), block)

    y = jnp.zeros((), x.dtype)
    for t in range(size_t):
        inputs = rows[:, :, t : t + frames]
        if groups == 1:
            y += jnp.einsum("cbthik,kf->cbthif", inputs, band[t, 0])
        else:
            y += jnp.einsum("cbthik,ckf->cbthif", inputs, band[t])
    y = y.reshape(channels, batch, frames, height, blocks * block, outputs)[..., :width, :]
    return jnp.moveaxis(y, 0, -2)


def _band(weights: Float[Array, "mt mh mw C E"], block: int) -> Float[Array, "mt C K F"]:
    """Weights as matrices from K = m_h * (block + m_w - 1) inputs to F = block * E outputs."""
    size_t, size_h, size_w, groups, outputs = weights.shape
    columns = [jnp.pad(weights, ((0, 0), (0, 0), (i, block - 1 - i), (0, 0), (0, 0))) for i in range(block)]
    band = jnp.stack(columns, axis=-2)  # mt mh K/mh C block E
    return jnp.moveaxis(band, 3, 1).reshape(size_t, groups, size_h * (block + size_w - 1), block * outputs)


def _block(width: int) -> int:
    """Outputs of a row that share a matrix: the whole row where it is short."""
    return width if width <= 14 else 14 if width % 14 == 0 else 8


def _pad(x: Float[Array, "B T H W C"], kernel_size: KernelSize, right: int = 0) -> Float[Array, "B T+ H+ W+ C"]:
    """Zeros around the map, `right` more columns of them at its end."""
    t, h, w = (size // 2 for size in kernel_size)
    return jnp.pad(x, ((0, 0), (t, t), (h, h), (w, w + right), (0, 0)))
