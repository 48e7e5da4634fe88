"""Pooling."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def max_pool(x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w C"]:
    """1 x 3 x 3 max pooling with stride 2, padded by 1 on both sides.

    The gradient is hand-written: XLA's own, of `lax.reduce_window`, takes many times as long.
    """
    return _max_pool_forward(x)[0]


def _max_pool_forward(x: Float[Array, "B T H W C"]) -> tuple[Float[Array, "B T h w C"], tuple[Array, tuple[int, ...]]]:
    """Maxima, and the position of each, 0 to 8, in its window."""
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
    # Along either axis, an odd pixel of the padded feature map is the middle of one window; an even one is the end of
    # a window and the start of the next. Pairs: offset of the window, and position of the pixel in it.
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
