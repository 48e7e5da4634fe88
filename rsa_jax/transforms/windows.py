"""Sums over the space-time windows of a map, on which every form of the transform rests.

A window is the block of M = m_t * m_h * m_w positions around a position; outside of the map there are zeros.
Its positions are counted row by row: frame, height, width. All maps are channels last, `B T H W C`.
"""

import functools

import jax
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate_banded(
    x: Float[Array, "B T H W C"], weights: Float[Array, "M C E"], kernel_size: KernelSize
) -> Float[Array, "B T H W C E"]:
    """The same sum as plain matrix products, forward and in both gradients.

    `b` neighbouring outputs of a row depend on `b + m_w - 1` inputs of each row of the window; as a matrix,
    the kernel is a band there. One product serves all frames of the window: it gives what each frame brings to
    the outputs of the frames around it, to be shifted there and added up. The gradients are one product each, too,
    and compute the rows of inputs anew instead of keeping them. Differentiable in reverse mode alone.
    """
    return _banded_forward(x, weights, kernel_size)[0]


def _banded_forward(
    x: Float[Array, "B T H W C"], weights: Float[Array, "M C E"], kernel_size: KernelSize
) -> tuple[Float[Array, "B T H W C E"], tuple[Array, Array]]:
    batch, frames, height, width, channels = x.shape
    size_t, outputs = kernel_size[0], weights.shape[-1]
    block = _block(width, outputs)
    rows, bands = _rows(x, kernel_size, block), _bands(weights, kernel_size, block)
    flat = rows.reshape(channels, -1, rows.shape[-1])
    y = flat @ bands if bands.shape[0] > 1 else jnp.einsum("cnk,kf->cnf", flat, bands[0])
    y = y.reshape(*rows.shape[:-1], size_t, block * outputs)
    y = functools.reduce(jnp.add, [_shift(y[..., t, :], t - size_t // 2) for t in range(size_t)])
    y = y.reshape(channels, batch, frames, height, -1, outputs)[..., :width, :]
    return jnp.moveaxis(y, 0, -2), (x, weights)


def _banded_backward(
    kernel_size: KernelSize, residuals: tuple[Array, Array], grad: Float[Array, "B T H W C E"]
) -> tuple[Float[Array, "B T H W C"], Float[Array, "M C E"]]:
    x, weights = residuals
    _, _, _, width, channels = x.shape
    size_t, outputs = kernel_size[0], weights.shape[-1]
    block = _block(width, outputs)
    rows, rows_pullback = jax.vjp(lambda x: _rows(x, kernel_size, block), x)
    bands, bands_pullback = jax.vjp(lambda weights: _bands(weights, kernel_size, block), weights)
    grad = jnp.moveaxis(grad, -2, 0)
    grad = jnp.pad(grad, ((0, 0),) * 4 + ((0, -width % block), (0, 0)))
    grad = grad.reshape(*rows.shape[:-1], block * outputs)
    # Written out as a concatenation: the transposed sum of shifts would be a sum of padded arrays.
    grad = jnp.concatenate([_shift(grad, size_t // 2 - t) for t in range(size_t)], axis=-1)
    grad, flat = grad.reshape(channels, -1, grad.shape[-1]), rows.reshape(channels, -1, rows.shape[-1])
    if bands.shape[0] > 1:
        grad_rows, grad_bands = jnp.einsum("cnf,ckf->cnk", grad, bands), jnp.einsum("cnk,cnf->ckf", flat, grad)
    else:
        grad_rows = jnp.einsum("cnf,kf->cnk", grad, bands[0])
        grad_bands = jnp.einsum("cnk,cnf->kf", flat, grad)[None]
    return *rows_pullback(grad_rows.reshape(rows.shape)), *bands_pullback(grad_bands)


correlate_banded.defvjp(_banded_forward, _banded_backward)


def _rows(x: Float[Array, "B T H W C"], kernel_size: KernelSize, block: int) -> Float[Array, "C B T H I K"]:
    """Inputs of every block of outputs in a frame: K = m_h * (block + m_w - 1)."""
    _, size_h, size_w = kernel_size
    height, width = x.shape[2:4]
    blocks, span = -(-width // block), block + size_w - 1
    following = -(-(span - block) // block)  # blocks after its own in which the span of a block ends
    x = _pad(x, (1, size_h, size_w), right=(blocks + following) * block - width - size_w + 1)
    x = jnp.moveaxis(x, -1, 0)
    x = x.reshape(*x.shape[:-1], blocks + following, block)
    parts = [x[..., i : i + blocks, : min(block, span - i * block)] for i in range(following + 1)]
    spans = jnp.concatenate(parts, axis=-1)
    return jnp.concatenate([spans[:, :, :, h : h + height] for h in range(size_h)], axis=-1)


def _bands(weights: Float[Array, "M C E"], kernel_size: KernelSize, block: int) -> Float[Array, "C K F"]:
    """Weights as matrices from K inputs to F = m_t * block * E contributions to outputs."""
    channels, outputs = weights.shape[1:]
    weights = weights.reshape(*kernel_size, channels, outputs)
    columns = [jnp.pad(weights, ((0, 0), (0, 0), (i, block - 1 - i), (0, 0), (0, 0))) for i in range(block)]
    bands = jnp.stack(columns, axis=-2).transpose(3, 1, 2, 0, 4, 5)  # C mh span mt block E
    return bands.reshape(channels, bands.shape[1] * bands.shape[2], -1)


def _block(width: int, outputs: int) -> int:
    """Neighbouring outputs that share a matrix: enough to make it some 32 columns wide for each frame."""
    return min(width, max(1, 32 // outputs))


def _shift(x: Float[Array, "C B T *N"], frames: int) -> Float[Array, "C B T *N"]:
    """Frame t of the result is frame t + frames of `x`, or zeros."""
    length = x.shape[2]
    if abs(frames) >= length:
        return jnp.zeros_like(x)
    kept = x[:, :, max(frames, 0) : length + min(frames, 0)]
    return jnp.pad(kept, ((0, 0), (0, 0), (max(-frames, 0), max(frames, 0)), *((0, 0),) * (x.ndim - 3)))


def _pad(x: Float[Array, "B T H W C"], kernel_size: KernelSize, right: int = 0) -> Float[Array, "B T+ H+ W+ C"]:
    """Zeros around the map, `right` more columns of them at its end."""
    t, h, w = (size // 2 for size in kernel_size)
    return jnp.pad(x, ((0, 0), (t, t), (h, h), (w, w + right), (0, 0)))
