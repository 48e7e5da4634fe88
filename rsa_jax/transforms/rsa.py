"""Relational self-attention as a Flax layer."""

import math

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax.transforms.equations import RSAWeights
from rsa_jax.transforms.forms import get_form
from rsa_jax.transforms.windows import KernelSize

PARTS = ("V", "R", "V+R")
NORMALIZATIONS = ("l2", "none")


class RSA(nnx.Module):
    """Relational self-attention (arXiv 2111.01673, Eq. 12), with L queries that share one key and one value.

    Maps `B T H W C` to the same shape. Parameters, with c = channels / num_queries and M the window's positions:
    `projection` to queries, key and value (no bias), `H1` [M, c, D], `H2` [M, D], `P1` [c, D], `G` [M, c] and
    `I` [c, c]; those that the chosen kernel and context do not use are None.

    Args:
        channels: of input and output.
        num_queries: L; has to divide `channels`.
        kernel_size: window in frames, height, width; odd numbers. It may exceed the map.
        latent_dim: D; None for channels / num_queries. A kernel "V" has none: its P is not decomposed.
        kernel: "V" basic, "R" relational, "V+R" their sum.
        context: likewise.
        normalization: of each query, the key and the value over their channels: "l2" or "none".
        form: how it is computed: "reference" (Eq. 11), "conv", "banded" (Eq. 12), or "auto".
        dtype: of the computation; None for that of input and parameters. Parameters are float32.
        rngs: for the initial weights.

    Initial weights are the published ones: normal with variance 2 / fan-out, P1 with 1 / (M D), I the identity.

    Raises:
        ValueError: an argument is none of these, in words.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_queries: int = 8,
        kernel_size: KernelSize = (5, 7, 7),
        latent_dim: int | None = None,
        kernel: str = "V+R",
        context: str = "V+R",
        normalization: str = "l2",
        form: str = "auto",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        _check(channels, num_queries, kernel_size, latent_dim, kernel, context, normalization)
        self.num_queries, self.normalization = num_queries, normalization
        self.kernel_size: KernelSize = (kernel_size[0], kernel_size[1], kernel_size[2])
        self.dtype = dtype
        self.form = get_form(form)
        width = channels // num_queries
        latent_dim = latent_dim or width
        positions = kernel_size[0] * kernel_size[1] * kernel_size[2]

        def over_window(*outputs: int) -> nnx.Param:
            # MSRA by fan-out: an input takes part in all outputs of all windows around it.
            initializer = initializers.normal((2 / (positions * math.prod(outputs))) ** 0.5)
            return nnx.Param(initializer(rngs.params(), (positions, *outputs)))

        relational_kernel, relational_context = "R" in kernel, "R" in context
        self.projection = nnx.Linear(
            channels,
            channels + width * (1 + relational_kernel),
            use_bias=False,
            param_dtype=float,
            kernel_init=initializers.variance_scaling(2.0, "fan_out", "normal"),
            dtype=dtype,
            rngs=rngs,
        )
        self.H1 = over_window(width, latent_dim) if relational_kernel else None
        self.H2 = over_window(latent_dim)
        self.G = over_window(width) if relational_context else None
        small = initializers.normal((positions * latent_dim) ** -0.5)
        self.P1 = nnx.Param(small(rngs.params(), (width, latent_dim))) if kernel == "V+R" else None
        self.I = nnx.Param(jnp.eye(width)) if context == "V+R" else None

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transforms a map. Output channel c * L + l is channel c of query l, as in the published layer."""
        query, key, value = self.project(x)
        y = self.form(query, key, value, self.weights(query.dtype), self.kernel_size)
        return jnp.moveaxis(y, -2, -1).reshape(x.shape)

    def multiply_adds(self, shape: tuple[int, ...]) -> int:
        """Of a map of that shape, as the paper's tables count them.

        That is Eq. 12 with its factors multiplied as in the published code, the right two first, and with a product
        of the query by P1 whether or not the kernel has one. What `rsa_factored` does is less: it multiplies from
        the left.
        """
        channels = shape[-1]
        width = channels // self.num_queries
        positions, latent_dim = self.H2.shape
        relational_kernel, relational_context = self.H1 is not None, self.G is not None
        window_sums = latent_dim * (1 + relational_kernel) + width * relational_context
        products = 2 * self.num_queries * latent_dim + width * latent_dim * relational_context
        each = self.projection.kernel.size + width * (positions * window_sums + products)
        return math.prod(shape[:-1]) * each

    def project(
        self, x: Float[Array, "B T H W C"]
    ) -> tuple[Float[Array, "B T H W L c"], Float[Array, "B T H W c"], Float[Array, "B T H W c"]]:
        """Normalised queries, key and value. The value stands for the key where the kernel needs none."""
        channels, width = x.shape[-1], x.shape[-1] // self.num_queries
        # Positions in one axis, as in SpatialConv.
        projected = self.projection(x.reshape(-1, channels)).reshape(*x.shape[:-1], -1)
        query = projected[..., :channels].reshape(*x.shape[:-1], self.num_queries, width)
        key, value = projected[..., channels : channels + width], projected[..., -width:]
        if self.normalization == "l2":
            return l2_normalize(query), l2_normalize(key), l2_normalize(value)
        return query, key, value

    def weights(self, dtype: DTypeLike) -> RSAWeights:
        """The weights of the equations, in the type of the computation."""

        def array(param: nnx.Param | None) -> Array | None:
            return None if param is None else param[...].astype(dtype)

        return RSAWeights(self.H2[...].astype(dtype), array(self.H1), array(self.P1), array(self.G), array(self.I))


def l2_normalize(x: Float[Array, "*N C"]) -> Float[Array, "*N C"]:
    """x / sqrt(Σ x² + 1e-6) over the channels; the sum is taken in float32 or better."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # As a product that gives every channel the sum: XLA's own sums, fused with the products that follow, take three
    # times as long on a CPU.
    ones = jnp.ones((x.shape[-1], x.shape[-1]), wide.dtype)
    squares = jnp.matmul(wide * wide, ones, precision=lax.Precision.HIGHEST)
    return (wide * lax.rsqrt(squares + 1e-6)).astype(x.dtype)


def _check(
    channels: int,
    num_queries: int,
    kernel_size: KernelSize,
    latent_dim: int | None,
    kernel: str,
    context: str,
    normalization: str,
) -> None:
    if num_queries < 1 or channels % num_queries:
        raise ValueError(f"num_queries: expected a divisor of the {channels} channels, got {num_queries}")
    if len(kernel_size) != 3 or any(size < 1 or size % 2 == 0 for size in kernel_size):
        raise ValueError(f"kernel_size: expected three odd numbers (frames, height, width), got {kernel_size}")
    if latent_dim is not None and latent_dim < 1:
        raise ValueError(f"latent_dim: expected a positive number or None, got {latent_dim}")
    for name, part in (("kernel", kernel), ("context", context)):
        if part not in PARTS:
            raise ValueError(f"{name}: expected one of {PARTS}, got {part!r}")
    if kernel == "V" and latent_dim not in (None, channels // num_queries):
        raise ValueError(f"latent_dim: kernel 'V' does not decompose P and has none, got {latent_dim}")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization: expected one of {NORMALIZATIONS}, got {normalization!r}")
