"""Window sums as matrix products."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rsa_jax.ops.blocks import Blocks, band_matrices, block_rows
from rsa_jax.ops.cpu.compilation import not_before
from rsa_jax.ops.devices import number_of_devices
from rsa_jax.ops.windows import KernelSize


def window_sums(
    x: Float[Array, "B T H W C"],
    weights: Float[Array, " M #C E"],
    *,
    kernel_size: KernelSize,
    axes: tuple[Blocks, Blocks] | None = None,
    parts: int | None = None,
) -> Float[Array, "B T H W C E"]:
    """Σ_m x[n + m, c] weights[m, c, e] as one plain matrix product, in the forward pass and both gradients.

    The inputs of all blocks are several times as large as the feature map. They are materialised for a few clips at a
    time, and again for the gradients.

    Args:
        x: a feature map.
        weights: weights for each channel, or weights that all channels share.
        kernel_size: size of the window.
        axes: blocks in time and width; None for the cheapest.
        parts: number of sequential batch chunks; None for the fewest that keep the inputs in the cache.
    """
    axes = axes or choose_blocks(x.shape, weights.shape, kernel_size)
    return _window_sums(x, weights, kernel_size, axes, parts or choose_parts(x.shape, kernel_size, axes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _window_sums(
    x: Float[Array, "B T H W C"],
    weights: Float[Array, " M #C E"],
    kernel_size: KernelSize,
    axes: tuple[Blocks, Blocks],
    parts: int,
) -> Float[Array, "B T H W C E"]:
    return _forward(x, weights, kernel_size, axes, parts)[0]


def _forward(
    x: Float[Array, "B T H W C"],
    weights: Float[Array, " M #C E"],
    kernel_size: KernelSize,
    axes: tuple[Blocks, Blocks],
    parts: int,
) -> tuple[Float[Array, "B T H W C E"], tuple[Array, Array]]:
    time, width = axes
    bands = band_matrices(weights, kernel_size, axes)

    def part(x: Float[Array, "b T H W C"]) -> Float[Array, "b T H W C E"]:
        rows = block_rows(x, kernel_size, axes)
        flat = rows.reshape(rows.shape[0], -1, rows.shape[-1])
        y = flat @ bands if bands.shape[0] > 1 else jnp.einsum("cnk,kf->cnf", flat, bands[0])
        y = y.reshape(*rows.shape[:-1], time.block, width.block, -1)  # C b J I H t w E
        y = y.transpose(1, 2, 5, 4, 3, 6, 0, 7)
        y = y.reshape(x.shape[0], time.blocks * time.block, x.shape[2], width.blocks * width.block, *y.shape[-2:])
        return y[:, : time.length, :, : width.length]

    _, y = _in_parts(lambda total, x: (total, part(x)), jnp.zeros(()), (x,), parts)
    return y, (x, weights)


def _backward(
    kernel_size: KernelSize,
    axes: tuple[Blocks, Blocks],
    parts: int,
    residuals: tuple[Array, Array],
    grad: Float[Array, "B T H W C E"],
) -> tuple[Float[Array, "B T H W C"], Float[Array, " M #C E"]]:
    x, weights = residuals
    time, width = axes
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
    total, grad_x = _in_parts(part, total, (x, grad), parts)
    return grad_x, *bands_pullback(total.astype(bands.dtype))


_window_sums.defvjp(_forward, _backward)


# Cost of writing a number to memory, in MACs of a matrix product. Measured by benchmarks/choose_blocks.py.
WRITE = 256

# Inputs of blocks that are materialised at once: as many as fit in the cache.
INPUTS_AT_ONCE = 2**22


def choose_blocks(
    shape: tuple[int, ...], weights: tuple[int, ...], kernel_size: KernelSize, write: float = WRITE
) -> tuple[Blocks, Blocks]:
    """The cheapest blocks in time and width for a feature map and weights of these shapes.

    Large blocks multiply by more zeros and make larger matrices; small ones copy each input more often.

    Args:
        shape: shape of the feature map.
        weights: shape of the weights.
        kernel_size: size of the window.
        write: cost of writing a number to memory, in MACs.
    """
    (batch, frames, height, width, channels), (_, groups, outputs) = shape, weights

    def cost(axes: tuple[Blocks, Blocks]) -> float:
        """Cost of a row of the feature map: its products, its copies of inputs, and its fraction of the matrices."""
        time, width = axes
        inputs, block = time.span * kernel_size[1] * width.span, time.block * width.block
        share = block * outputs * groups / (batch * frames * height * width.length * channels)
        return inputs * (outputs + write * (1 / block + share)) * time.blocks * width.blocks * block

    def sizes(length: int) -> list[int]:
        return [length, *(2**i for i in range(length.bit_length()) if 2**i < length)]

    axes = [
        (Blocks(frames, kernel_size[0], t), Blocks(width, kernel_size[2], w))
        for t in sizes(frames)
        for w in sizes(width)
    ]
    return min(axes, key=cost)


def choose_parts(shape: tuple[int, ...], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]) -> int:
    """Number of sequential batch chunks: the fewest that keep the inputs of all blocks in the cache.

    If the devices share the batch evenly, each has the same number of clips in every chunk.
    """
    time, width = axes
    batch, _, height, _, channels = shape
    devices = number_of_devices()
    clips = batch // devices if batch % devices == 0 else batch
    inputs = time.blocks * time.span * width.blocks * width.span * height * kernel_size[1] * channels
    divisors = (parts for parts in range(1, clips + 1) if clips % parts == 0)
    return next(parts for parts in divisors if inputs * clips <= INPUTS_AT_ONCE * parts or parts == clips)


def _in_parts(
    part: Callable[..., tuple[Array, Array]], total: Array, arrays: tuple[Array, ...], parts: int
) -> tuple[Array, Float[Array, " B *N"]]:
    """Run `part(total, *arrays)` on one chunk of clips at a time; return the last total and the results of all clips.

    Chunk i takes clips i, i + parts, ..., so that devices that share the batch hold equal fractions of each chunk.
    """
    if parts == 1:
        return part(total, *arrays)
    split = [x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for x in arrays]
    shape = jax.eval_shape(part, total, *(x[0] for x in split))[1]
    # Not zeros, as in `lax.scan`: a constant-initialised buffer is allocated at program start. Here the buffer of
    # each clip depends on that clip, which is on the same device.
    first = split[0].reshape(*split[0].shape[:2], -1)[..., 0].astype(shape.dtype)
    room = jnp.broadcast_to((0 * first).reshape(*first.shape, *(1,) * (shape.ndim - 1)), (parts, *shape.shape))

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, results = carry
        total, result = part(total, *(x[i] for x in split))
        return total, results.at[i].set(result)

    total, results = lax.fori_loop(0, parts, step, (total, room))
    return total, results.swapaxes(0, 1).reshape(-1, *results.shape[2:])
