"""Space-time windows of a feature map.

A window is the block of M = m_t * m_h * m_w positions around a position, with zeros outside the feature map.
Its positions are in row-major order: frame, height, width. All feature maps are channels last, `B T H W C`.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

KernelSize = tuple[int, int, int]


def check_kernel_size(kernel_size: Sequence[int], *, others: bool = False) -> None:
    """Raise ValueError unless these are three odd numbers; with `others`, also two (images) or one (sequences)."""
    sizes = kernel_size if isinstance(kernel_size, Sequence) else ()
    if len(sizes) not in ((1, 2, 3) if others else (3,)) or any(
        not isinstance(size, int) or size < 1 or size % 2 == 0 for size in sizes
    ):
        expected = "odd sizes: three (frames, height, width)"
        expected += ", two (height, width; images) or one (sequences)" if others else ""
        raise ValueError(f"kernel_size: expected {expected}, got {kernel_size!r}")


def check_position(position: Sequence[int], map_size: Sequence[int]) -> None:
    """Raise ValueError unless `position` lies in a feature map of size `map_size`."""
    if len(position) != len(map_size) or not all(0 <= n < size for n, size in zip(position, map_size, strict=True)):
        names = ("frame", "row", "column")[-len(map_size) :] if len(map_size) > 1 else ("index",)
        expected = ", ".join(f"{name} 0 to {size - 1}" for name, size in zip(names, map_size, strict=True))
        raise ValueError(f"position: expected {expected}, got {','.join(map(str, position))}")


def windows(x: Float[Array, "B T H W C"], kernel_size: KernelSize) -> Float[Array, "B T H W M C"]:
    """Materialised windows of all positions: M times the memory of `x`."""
    _, frames, height, width, _ = x.shape
    x = pad(x, kernel_size)
    shape = (*x.shape[:1], frames, height, width, -1, x.shape[-1])
    # One axis at a time: m_t + m_h + m_w slices to compile instead of their product.
    for axis, size, length in zip((3, 2, 1), reversed(kernel_size), (width, height, frames), strict=True):
        slices = [lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(size)]
        x = jnp.stack(slices, axis=4)
    return x.reshape(shape)


def window_at(
    x: Float[Array, "B T H W C"], position: tuple[int, int, int], kernel_size: KernelSize
) -> Float[Array, "B M C"]:
    """Window of one position (frame, row, column)."""
    start = (0, *position, 0)
    window = lax.dynamic_slice(pad(x, kernel_size), start, (x.shape[0], *kernel_size, x.shape[-1]))
    return window.reshape(x.shape[0], -1, x.shape[-1])


def pad(x: Float[Array, "B T H W *N"], kernel_size: KernelSize) -> Float[Array, "B T+ H+ W+ *N"]:
    """Zero-pad the feature map by half a window on each side."""
    around = [(size // 2, size // 2) for size in kernel_size]
    return jnp.pad(x, [(0, 0), *around, *[(0, 0)] * (x.ndim - 4)])
