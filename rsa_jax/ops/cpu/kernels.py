"""Window sums with a kernel for each position."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from rsa_jax.ops.windows import KernelSize, pad


def apply_kernels(
    kernels: Float[Array, "M B T H W G"], values: Float[Array, "B T H W G c"], *, kernel_size: KernelSize
) -> Float[Array, "B T H W G c"]:
    """Σ_m kernels[m, n] values[n + m], one row of the window at a time, in the forward pass and both gradients."""
    return _apply(kernels, values, kernel_size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _apply(
    kernels: Float[Array, "M B T H W G"], values: Float[Array, "B T H W G c"], kernel_size: KernelSize
) -> Float[Array, "B T H W G c"]:
    return _forward(kernels, values, kernel_size)[0]


def _forward(
    kernels: Float[Array, "M B T H W G"], values: Float[Array, "B T H W G c"], kernel_size: KernelSize
) -> tuple[Float[Array, "B T H W G c"], tuple[Array, Array]]:
    padded = pad(values, kernel_size)

    def add_row(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        start, kernels = inputs
        for kernel, value in zip(kernels, _row_of_window(padded, start, kernel_size), strict=True):
            total += kernel[..., None] * value
        return total, None

    total = jnp.zeros(values.shape, jnp.promote_types(values.dtype, jnp.float32))
    y = lax.scan(add_row, total, (_row_starts(kernel_size), _by_rows(kernels, kernel_size)))[0]
    return y.astype(values.dtype), (kernels, values)


def _backward(
    kernel_size: KernelSize, residuals: tuple[Array, Array], grad: Float[Array, "B T H W G c"]
) -> tuple[Float[Array, "M B T H W G"], Float[Array, "B T H W G c"]]:
    """Gradients without additions to slices, as XLA would derive them: each addition copies the whole feature map."""
    kernels, values = residuals
    padded_values, padded_grad = pad(values, kernel_size), pad(grad, kernel_size)
    # Sums over channels are products with ones: with XLA's own sums, gradients take more than twice as long.
    ones = jnp.ones((grad.shape[-1], 1), grad.dtype)

    def sum_channels(x: Float[Array, "*N c"]) -> Float[Array, "*N"]:
        exact = lax.Precision.HIGHEST
        return jnp.matmul(x, ones, precision=exact, preferred_element_type=total.dtype)[..., 0]

    def add_row(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        start, kernels = inputs
        # The gradient of the values is the same sum with the window reversed.
        turned = jnp.array(kernel_size[:2]) - 1 - start
        grads = _row_of_window(padded_grad, turned, kernel_size)[::-1]
        for i, (kernel, grad_there) in enumerate(zip(kernels, grads, strict=True)):
            row = _row_of_window(pad(kernel, kernel_size), turned, kernel_size)
            total += row[kernel_size[2] - 1 - i][..., None] * grad_there
        row = _row_of_window(padded_values, start, kernel_size)
        return total, jnp.stack([sum_channels(grad * value) for value in row])

    total = jnp.zeros(values.shape, jnp.promote_types(values.dtype, jnp.float32))
    rows = _row_starts(kernel_size), _by_rows(kernels, kernel_size)
    total, grad_kernels = lax.scan(add_row, total, rows)
    return grad_kernels.reshape(kernels.shape).astype(kernels.dtype), total.astype(values.dtype)


_apply.defvjp(_forward, _backward)


def _row_starts(kernel_size: KernelSize) -> Int[Array, "N 2"]:
    """Frame and row, in the padded feature map, of each row of the window."""
    return jnp.indices(kernel_size[:2]).reshape(2, -1).T


def _by_rows(kernels: Float[Array, " M *N"], kernel_size: KernelSize) -> Float[Array, "R m_w *N"]:
    return kernels.reshape(-1, kernel_size[2], *kernels.shape[1:])


def _row_of_window(
    padded: Float[Array, "B T+ H+ W+ *N"], start: Int[Array, " 2"], kernel_size: KernelSize
) -> list[Float[Array, "B T H W *N"]]:
    """The feature map shifted by each position of a row of the window."""
    frames, height, width = (n - size + 1 for n, size in zip(padded.shape[1:4], kernel_size, strict=True))
    others = padded.shape[4:]
    shape = (padded.shape[0], frames, height, padded.shape[3], *others)
    row = lax.dynamic_slice(padded, (0, *start, 0, *[0] * len(others)), shape)
    return [lax.slice_in_dim(row, i, i + width, axis=3) for i in range(kernel_size[2])]
