"""Sums over the space-time windows of a map, on which every form of the transform rests.

A window is the block of M = m_t * m_h * m_w positions around a position; outside of the map there are zeros.
Its positions are counted row by row: frame, height, width. All maps are channels last, `B T H W C`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from rsa_jax.compiler import not_before

KernelSize = tuple[int, int, int]


def check_kernel_size(kernel_size: Sequence[int], *, others: bool = False) -> None:
    """Raises a ValueError unless these are three odd numbers; `others`: or two of an image, or one of a sequence."""
    sizes = kernel_size if isinstance(kernel_size, Sequence) else ()
    if len(sizes) not in ((1, 2, 3) if others else (3,)) or any(
        not isinstance(size, int) or size < 1 or size % 2 == 0 for size in sizes
    ):
        expected = "three odd numbers (frames, height, width)"
        expected += ", two for images (height, width) or one for sequences" if others else ""
        raise ValueError(f"kernel_size: expected {expected}, got {kernel_size!r}")


def check_position(position: Sequence[int], map_size: Sequence[int]) -> None:
    """Raises a ValueError unless this is a position of a map of that size."""
    if len(position) != len(map_size) or not all(0 <= n < size for n, size in zip(position, map_size, strict=True)):
        names = ("frame", "row", "column")[-len(map_size) :] if len(map_size) > 1 else ("entry",)
        expected = ", ".join(f"{name} 0 to {size - 1}" for name, size in zip(names, map_size, strict=True))
        raise ValueError(f"position: expected {expected}, got {','.join(map(str, position))}")


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


def window_at(
    x: Float[Array, "B T H W C"], position: tuple[int, int, int], kernel_size: KernelSize
) -> Float[Array, "B M C"]:
    """The window of one position: frame, row, column."""
    start = (0, *position, 0)
    window = lax.dynamic_slice(_pad(x, kernel_size), start, (x.shape[0], *kernel_size, x.shape[-1]))
    return window.reshape(x.shape[0], -1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def apply_kernels(
    kernels: Float[Array, "M B T H W G"], values: Float[Array, "B T H W G c"], kernel_size: KernelSize
) -> Float[Array, "B T H W G c"]:
    """Σ_m kernels[m, n] values[n + m], with kernels of every position; summed in float32 or better.

    One row of the window after the other: where `windows` needs M times the memory of the values, this needs that of
    the result, forward and in both gradients. Differentiable in reverse mode alone.
    """
    return _apply_forward(kernels, values, kernel_size)[0]


def _apply_forward(
    kernels: Float[Array, "M B T H W G"], values: Float[Array, "B T H W G c"], kernel_size: KernelSize
) -> tuple[Float[Array, "B T H W G c"], tuple[Array, Array]]:
    padded = _pad(values, kernel_size)

    def add_row(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        start, kernels = inputs
        for kernel, value in zip(kernels, _row_of_window(padded, start, kernel_size), strict=True):
            total += kernel[..., None] * value
        return total, None

    total = jnp.zeros(values.shape, jnp.promote_types(values.dtype, jnp.float32))
    y = lax.scan(add_row, total, (_row_starts(kernel_size), _by_rows(kernels, kernel_size)))[0]
    return y.astype(values.dtype), (kernels, values)


def _apply_backward(
    kernel_size: KernelSize, residuals: tuple[Array, Array], grad: Float[Array, "B T H W G c"]
) -> tuple[Float[Array, "M B T H W G"], Float[Array, "B T H W G c"]]:
    """Without adding to parts of a map, as XLA would derive it: that copies the map for every position."""
    kernels, values = residuals
    padded_values, padded_grad = _pad(values, kernel_size), _pad(grad, kernel_size)
    # Sums over channels as products with ones: with XLA's own, gradients take more than twice as long on a CPU.
    ones = jnp.ones((grad.shape[-1], 1), grad.dtype)

    def sum_channels(x: Float[Array, "*N c"]) -> Float[Array, "*N"]:
        exact = lax.Precision.HIGHEST
        return jnp.matmul(x, ones, precision=exact, preferred_element_type=total.dtype)[..., 0]

    def add_row(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        start, kernels = inputs
        # What n gave to n + m comes back to it: the same sum with the window turned around.
        turned = jnp.array(kernel_size[:2]) - 1 - start
        grads = _row_of_window(padded_grad, turned, kernel_size)[::-1]
        for i, (kernel, grad_there) in enumerate(zip(kernels, grads, strict=True)):
            row = _row_of_window(_pad(kernel, kernel_size), turned, kernel_size)
            total += row[kernel_size[2] - 1 - i][..., None] * grad_there
        row = _row_of_window(padded_values, start, kernel_size)
        return total, jnp.stack([sum_channels(grad * value) for value in row])

    total = jnp.zeros(values.shape, jnp.promote_types(values.dtype, jnp.float32))
    rows = _row_starts(kernel_size), _by_rows(kernels, kernel_size)
    total, grad_kernels = lax.scan(add_row, total, rows)
    return grad_kernels.reshape(kernels.shape).astype(kernels.dtype), total.astype(values.dtype)


apply_kernels.defvjp(_apply_forward, _apply_backward)


def _row_starts(kernel_size: KernelSize) -> Int[Array, "N 2"]:
    """Frame and row, in the padded map, of each row of the window."""
    return jnp.indices(kernel_size[:2]).reshape(2, -1).T


def _by_rows(kernels: Float[Array, "M *N"], kernel_size: KernelSize) -> Float[Array, "R m_w *N"]:
    return kernels.reshape(-1, kernel_size[2], *kernels.shape[1:])


def _row_of_window(
    padded: Float[Array, "B T+ H+ W+ *N"], start: Int[Array, " 2"], kernel_size: KernelSize
) -> list[Float[Array, "B T H W *N"]]:
    """The map moved by each position of a row of the window."""
    frames, height, width = (n - size + 1 for n, size in zip(padded.shape[1:4], kernel_size, strict=True))
    others = padded.shape[4:]
    shape = (padded.shape[0], frames, height, padded.shape[3], *others)
    row = lax.dynamic_slice(padded, (0, *start, 0, *[0] * len(others)), shape)
    return [lax.slice_in_dim(row, i, i + width, axis=3) for i in range(kernel_size[2])]


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
    """The same sum as one plain matrix product, forward and in both gradients.

    Outputs that are neighbours in time and width form a block; they depend on a block of inputs that is wider by
    the window less one, in each of the window's rows. As a matrix from those to these, the kernel is a band. The
    inputs of all blocks are some times as large as the map: they are written out for a few clips at a time, and anew
    for the gradients. Differentiable in reverse mode alone.
    """
    return _banded_forward(x, weights, kernel_size)[0]


def _banded_forward(
    x: Float[Array, "B T H W C"], weights: Float[Array, "M C E"], kernel_size: KernelSize
) -> tuple[Float[Array, "B T H W C E"], tuple[Array, Array]]:
    time, width = axes = choose_blocks(x.shape, weights.shape, kernel_size)
    bands = band_matrices(weights, kernel_size, axes)

    def part(x: Float[Array, "b T H W C"]) -> Float[Array, "b T H W C E"]:
        rows = block_rows(x, kernel_size, axes)
        flat = rows.reshape(rows.shape[0], -1, rows.shape[-1])
        y = flat @ bands if bands.shape[0] > 1 else jnp.einsum("cnk,kf->cnf", flat, bands[0])
        y = y.reshape(*rows.shape[:-1], time.block, width.block, -1)  # C b J I H t w E
        y = y.transpose(1, 2, 5, 4, 3, 6, 0, 7)
        y = y.reshape(x.shape[0], time.blocks * time.block, x.shape[2], width.blocks * width.block, *y.shape[-2:])
        return y[:, : time.length, :, : width.length]

    _, y = _in_parts(lambda total, x: (total, part(x)), jnp.zeros(()), (x,), _parts(x.shape, kernel_size, axes))
    return y, (x, weights)


def _banded_backward(
    kernel_size: KernelSize, residuals: tuple[Array, Array], grad: Float[Array, "B T H W C E"]
) -> tuple[Float[Array, "B T H W C"], Float[Array, "M C E"]]:
    x, weights = residuals
    time, width = axes = choose_blocks(x.shape, weights.shape, kernel_size)
    bands, bands_pullback = jax.vjp(lambda weights: band_matrices(weights, kernel_size, axes), weights)
    missing = [(0, axis.blocks * axis.block - axis.length) for axis in axes]

    def part(
        total: Float[Array, "G K F"], x: Float[Array, "b T H W C"], grad: Float[Array, "b T H W C E"]
    ) -> tuple[Float[Array, "G K F"], Float[Array, "b T H W C"]]:
        rows, rows_pullback = jax.vjp(lambda x: block_rows(x, kernel_size, axes), x)
        flat = rows.reshape(rows.shape[0], -1, rows.shape[-1])
        grad = jnp.pad(grad, ((0, 0), missing[0], (0, 0), missing[1], (0, 0), (0, 0)))
        batch, _, height, _, channels, outputs = grad.shape
        grad = grad.reshape(batch, time.blocks, time.block, height, width.blocks, width.block, channels, outputs)
        grad = grad.transpose(6, 0, 1, 4, 3, 2, 5, 7).reshape(channels, -1, bands.shape[-1])
        if bands.shape[0] > 1:
            grad_rows, grad_bands = jnp.einsum("cnf,ckf->cnk", grad, bands), jnp.einsum("cnk,cnf->ckf", flat, grad)
        else:
            grad_rows = jnp.einsum("cnf,kf->cnk", grad, bands[0])
            grad_bands = jnp.einsum("cnk,cnf->kf", flat, grad)[None]
        return total + grad_bands, rows_pullback(grad_rows.reshape(rows.shape))[0]

    x = not_before(x, grad)
    total = jnp.zeros(bands.shape, jnp.promote_types(bands.dtype, jnp.float32))
    total, grad_x = _in_parts(part, total, (x, grad), _parts(x.shape, kernel_size, axes))
    return grad_x, *bands_pullback(total.astype(bands.dtype))


correlate_banded.defvjp(_banded_forward, _banded_backward)


class Blocks(NamedTuple):
    """An axis of the map in blocks of outputs.

    Args:
        length: of the axis.
        size: of the window along it.
        block: outputs of a block. The last block may reach beyond the axis.
    """

    length: int
    size: int
    block: int

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.length // self.block)

    @property
    def before(self) -> int:
        """Inputs before a block's first output. A single block needs none: there are but zeros."""
        return 0 if self.blocks == 1 else self.size // 2

    @property
    def span(self) -> int:
        """Inputs of a block."""
        return self.length if self.blocks == 1 else self.block + self.size - 1

    def inputs(self, x: Float[Array, "*N"], axis: int) -> Float[Array, "*M"]:
        """The axis becomes two: blocks, and the inputs of each."""
        if self.blocks == 1:
            return jnp.expand_dims(x, axis)
        following = -(-(self.span - self.block) // self.block)  # blocks after its own in which a span ends
        total = (self.blocks + following) * self.block
        pads = [(0, 0)] * x.ndim
        pads[axis] = (self.before, total - self.before - self.length)
        x = jnp.pad(x, pads)
        x = x.reshape(*x.shape[:axis], -1, self.block, *x.shape[axis + 1 :])
        parts = []
        for i in range(following + 1):
            part = lax.slice_in_dim(x, i, i + self.blocks, axis=axis)
            parts.append(lax.slice_in_dim(part, 0, min(self.block, self.span - i * self.block), axis=axis + 1))
        return jnp.concatenate(parts, axis=axis + 1)

    def band(self, weights: Float[Array, "*N"], axis: int) -> Float[Array, "*M"]:
        """The window's axis becomes two: inputs and outputs of a block."""
        columns = []
        for output in range(self.block):
            first = output + self.before - self.size // 2  # input that the window's first weight meets
            pads = [(0, 0, 0)] * weights.ndim
            pads[axis] = (first, self.span - self.size - first, 0)  # below zero it crops
            columns.append(lax.pad(weights, jnp.zeros((), weights.dtype), pads))
        return jnp.stack(columns, axis=axis + 1)


# What it costs to write a number to memory, in multiply-adds of a matrix product: measured on two cores.
WRITE = 256


def choose_blocks(shape: tuple[int, ...], weights: tuple[int, ...], kernel_size: KernelSize) -> tuple[Blocks, Blocks]:
    """Blocks in time and width for a map and weights of these shapes, those that cost least.

    Large blocks multiply by more zeros and make larger matrices; small ones copy an input more often.
    """
    (batch, frames, height, width, channels), (_, groups, outputs) = shape, weights

    def cost(axes: tuple[Blocks, Blocks]) -> float:
        """Of each row of the map: its products, copies of inputs, and share of the matrices."""
        time, width = axes
        inputs, block = time.span * kernel_size[1] * width.span, time.block * width.block
        share = block * outputs * groups / (batch * frames * height * width.length * channels)
        return inputs * (outputs + WRITE * (1 / block + share)) * time.blocks * width.blocks * block

    def sizes(length: int) -> list[int]:
        return [length, *(2**i for i in range(length.bit_length()) if 2**i < length)]

    axes = [
        (Blocks(frames, kernel_size[0], t), Blocks(width, kernel_size[2], w))
        for t in sizes(frames)
        for w in sizes(width)
    ]
    return min(axes, key=cost)


def _parts(shape: tuple[int, ...], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]) -> int:
    """In how many parts the clips are computed, one after the other: as few as keep the inputs of all blocks small.

    On a CPU that is faster, too: they stay in its cache. Elsewhere it only bounds memory. Every device has as many
    clips of each part, where they share the batch evenly.
    """
    time, width = axes
    batch, _, height, _, channels = shape
    clips = batch // jax.device_count() if batch % jax.device_count() == 0 else batch
    inputs = time.blocks * time.span * width.blocks * width.span * height * kernel_size[1] * channels
    most = 2**22 if jax.default_backend() == "cpu" else 2**28
    divisors = (parts for parts in range(1, clips + 1) if clips % parts == 0)
    return next(parts for parts in divisors if inputs * clips <= most * parts or parts == clips)


def _in_parts(
    part: Callable[..., tuple[Array, Array]], total: Array, arrays: tuple[Array, ...], parts: int
) -> tuple[Array, Float[Array, "B *N"]]:
    """`part(total, *arrays)` for some clips at a time: the last total, and the other results of all clips.

    Part i takes clips i, i + parts, ...: where devices share the batch, every one has its share of each part.
    """
    if parts == 1:
        return part(total, *arrays)
    split = [x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for x in arrays]
    shape = jax.eval_shape(part, total, *(x[0] for x in split))[1]
    # Not zeros, as `lax.scan` would have it: room for a result that depends on nothing is kept from the start of
    # the program on. Every clip's room depends on that clip, which its device has.
    first = split[0].reshape(*split[0].shape[:2], -1)[..., 0].astype(shape.dtype)
    room = jnp.broadcast_to((0 * first).reshape(*first.shape, *(1,) * (shape.ndim - 1)), (parts, *shape.shape))

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, results = carry
        total, result = part(total, *(x[i] for x in split))
        return total, results.at[i].set(result)

    total, results = lax.fori_loop(0, parts, step, (total, room))
    return total, results.swapaxes(0, 1).reshape(-1, *results.shape[2:])


def block_rows(
    x: Float[Array, "B T H W C"], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]
) -> Float[Array, "C B J I H K"]:
    """Inputs of block J in time and I in width, in each row H: K = m_h * span in time * span in width."""
    time, width = axes
    height, size = x.shape[2], kernel_size[1]
    x = jnp.moveaxis(_pad(x, (1, size, 1)), -1, 0)
    x = time.inputs(width.inputs(x, 4), 2)  # C B J t H I w
    x = x.transpose(0, 1, 2, 5, 4, 3, 6)
    x = x.reshape(*x.shape[:-2], -1)
    # Last, and whole rows at a time: what is copied m_h times lies together.
    return jnp.concatenate([x[..., i : i + height, :] for i in range(size)], axis=-1)


def band_matrices(
    weights: Float[Array, "M C E"], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]
) -> Float[Array, "C K F"]:
    """Weights as matrices from K inputs to the F = block in time * block in width * E outputs of a block."""
    time, width = axes
    weights = jnp.moveaxis(weights.reshape(*kernel_size, *weights.shape[1:]), 3, 0)
    bands = time.band(width.band(weights, 3), 1)  # C t block m_h w block E
    bands = bands.transpose(0, 3, 1, 4, 2, 5, 6)
    return bands.reshape(bands.shape[0], bands.shape[1] * time.span * width.span, -1)


def _pad(x: Float[Array, "B T H W *N"], kernel_size: KernelSize) -> Float[Array, "B T+ H+ W+ *N"]:
    """Zeros around the map."""
    around = [(size // 2, size // 2) for size in kernel_size]
    return jnp.pad(x, [(0, 0), *around, *[(0, 0)] * (x.ndim - 4)])
