"""Relational self-attention as a Flax layer."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax import ops
from rsa_jax.nn.layers import BatchNorm, Linear, softmax_over_positions
from rsa_jax.ops import equations
from rsa_jax.ops.windows import KernelSize, check_kernel_size, check_position, window_at

PARTS = ("V", "R", "V+R")
NORMALIZATIONS = ("l2", "batch", "lambda", "none")

# Axes of the layer's input, by the number of window dimensions.
INPUTS = {1: "B T C", 2: "B H W C", 3: "B T H W C"}


class RSA(nnx.Module):
    """Relational self-attention (arXiv 2111.01673, Eq. 12), with L queries that share one key and one value.

    y = ((P1 + A)ᵀ x^Q)ᵀ (H2ᵀ X^V) (I + (X^V)ᵀ G), with A[c, d] = Σ_m X^K[m, c] H1[m, c, d].

    Maps `B T H W C` to the same shape; with a 2D window images `B H W C`, with a 1D window sequences `B T C`.
    Parameters, with c = channels / num_queries and M the number of window positions: `projection` to queries, key and
    value (no bias), `H1` [M, c, D], `H2` [M, D], `P1` [c, D], `G` [M, c] and `I` [c, c]. Parameters that the chosen
    kernel and context do not use are None.

    Args:
        channels: of input and output.
        num_queries: L; must divide `channels`.
        kernel_size: window in frames, height, width; odd numbers. It may exceed the feature map. (height, width) for
            images, (length,) for sequences.
        latent_dim: D; None for channels / num_queries. Kernel "V" has none: its P is not decomposed.
        decomposed: whether H and P are products. If False, `H1` is H [M, G, M], `P1` is Pᵀ [c, M], and the identity
            replaces H2. False suits small windows: memory and MACs grow by a factor of M / D.
        relation_groups: G, the number of channel groups within which products of query and key are summed; must
            divide c. 1 is the dot product, None (c) the Hadamard product. `H1` is [M, G, D]: the channels of a group
            share its entries.
        kernel: "V" basic, "R" relational, "V+R" their sum.
        context: "V" basic, "R" relational, "V+R" their sum.
        normalization: of query, key and value: "l2", each over its channels; "batch", BatchNorm; "lambda", as in
            LambdaNetworks (arXiv 2102.08602): softmax of each key channel over all positions of the feature map,
            BatchNorm of query and value; or "none".
        implementation: of all operations, one of `rsa_jax.ops.IMPLEMENTATIONS`; "reference" computes Eq. 11, the others
            Eq. 12. None: chosen by platform.
        batch_norm_clips: ghost batch size of BatchNorm in training; 0 for the whole batch.
        dtype: of the computation; by default promoted from input and parameters. Parameters are float32.
        rngs: for the initial weights.

    Initialisation is the published one: normal with variance 2 / fan-out, for P1 with 1 / (M D); I is the identity.

    Raises:
        ValueError: If an argument is invalid; the message names it.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_queries: int = 8,
        kernel_size: tuple[int, ...] = (5, 7, 7),
        latent_dim: int | None = None,
        decomposed: bool = True,
        relation_groups: int | None = None,
        kernel: str = "V+R",
        context: str = "V+R",
        normalization: str = "l2",
        implementation: str | None = None,
        batch_norm_clips: int = 0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        check_kernel_size(kernel_size, others=True)
        ops.check_implementation(implementation)
        _check_numbers(channels, num_queries, latent_dim, relation_groups)
        _check_parts(kernel, context, normalization)
        width, positions = channels // num_queries, math.prod(kernel_size)
        _check_combination(width, latent_dim, decomposed, relation_groups, kernel)
        self.num_queries, self.normalization = num_queries, normalization
        self.input_axes = INPUTS[len(kernel_size)]
        self.kernel_size = _as_clip(kernel_size)
        self.dtype = dtype
        self.implementation = implementation
        self.decomposed = decomposed or kernel == "V"
        self.relation_groups = relation_groups or width
        latent_dim = latent_dim or (width if self.decomposed else positions)

        def window_weights(*outputs: int) -> nnx.Param[Array]:
            # MSRA by fan-out: an input contributes to all outputs of all windows around it.
            initializer = initializers.normal((2 / (positions * math.prod(outputs))) ** 0.5)
            return nnx.Param(initializer(rngs.params(), (positions, *outputs)))

        relational_kernel, relational_context = "R" in kernel, "R" in context
        self.projection = Linear(
            channels,
            channels + width * (1 + relational_kernel),
            kernel_init=initializers.variance_scaling(2.0, "fan_out", "normal"),
            dtype=dtype,
            implementation=implementation,
            rngs=rngs,
        )
        self.H1 = window_weights(self.relation_groups, latent_dim) if relational_kernel else None
        self.H2 = window_weights(latent_dim) if self.decomposed else None
        self.G = window_weights(width) if relational_context else None
        p1_init = initializers.normal((positions * latent_dim) ** -0.5)
        self.P1 = nnx.Param(p1_init(rngs.params(), (width, latent_dim))) if kernel == "V+R" else None
        self.I = nnx.Param(jnp.eye(width)) if context == "V+R" else None
        norm: dict[str, Any] = {"clips": batch_norm_clips, "implementation": implementation}
        self.norms: nnx.Dict[BatchNorm] = nnx.Dict()
        if normalization in ("batch", "lambda"):
            self.norms.query, self.norms.value = BatchNorm(channels, **norm), BatchNorm(width, **norm)
        if normalization == "batch" and relational_kernel:
            self.norms.key = BatchNorm(width, **norm)

    def __call__(self, x: Float[Array, "B *N C"]) -> Float[Array, "B *N C"]:
        """Transform a feature map. Output channel c * L + l is channel c of query l, as in the published layer.

        Raises:
            ValueError: If the axes of the input do not match the window.
        """
        query, key, value = self.project(self._as_clips(x))
        settings: dict[str, Any] = {"kernel_size": self.kernel_size, "implementation": self.implementation}
        y = ops.rsa(query, key, value, self.weights(query.dtype), **settings)
        return jnp.moveaxis(y, -2, -1).reshape(x.shape)

    def kernels(
        self, x: Float[Array, "B *N C"], position: tuple[int, ...]
    ) -> dict[str, Float[Array, "B L m_t m_h m_w"]]:
        """Kernels that the queries at one position apply to their window. Fast implementations never form them.

        Args:
            x: the layer's input.
            position: of the query: (frame, row, column); (row, column) in an image; (index,) in a sequence.

        Returns:
            The layer's kernels by name: "basic", κ^V = H2 P1ᵀ x^Q, and "relational", κ^R = H2 Aᵀ x^Q. The layer
            applies their sum.

        Raises:
            ValueError: If the axes of the input do not match the window, or the position is not in the input.
        """
        query, key, _ = self.project(self._as_clips(x))
        check_position(position, x.shape[1:-1])
        position = _as_clip(position, 0)
        H2, H1, P1, _, _ = self.weights(query.dtype)
        query = query[(slice(None), *position)]
        kernels = {}
        if H1 is None:
            kernels["basic"] = equations.over_window(query, H2)
        if P1 is not None:
            kernels["basic"] = equations.basic_kernel(query, P1, H2)
        if H1 is not None:
            keys = window_at(key, position, self.kernel_size)
            kernels["relational"] = equations.relational_kernel(query, keys, H1, H2)
        return {name: kernel.reshape(*kernel.shape[:2], *self.kernel_size) for name, kernel in kernels.items()}

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for an input of that shape, counted as in the paper's tables.

        The count follows Eq. 12 with its factors multiplied as in the published code, the right two first. It includes
        a product of the query and P1 whether or not the kernel has P1. `equations.rsa_factored` needs fewer MACs: it
        multiplies from the left. `relation_groups` does not change the count. Without H2, there is no product with it.
        """
        channels = shape[-1]
        width, positions = channels // self.num_queries, math.prod(self.kernel_size)
        latent_dim = positions if self.H2 is None else self.H2.shape[1]
        relational_kernel, relational_context = self.H1 is not None, self.G is not None
        window_sums = latent_dim * (self.decomposed + relational_kernel) + width * relational_context
        products = 2 * self.num_queries * latent_dim + width * latent_dim * relational_context
        per_position = self.projection.kernel.size + width * (positions * window_sums + products)
        return math.prod(shape[:-1]) * per_position

    def project(
        self, x: Float[Array, "B T H W C"]
    ) -> tuple[Float[Array, "B T H W L c"], Float[Array, "B T H W c"], Float[Array, "B T H W c"]]:
        """Normalised queries, key and value. The value takes the place of the key if the kernel needs no key."""
        channels, width = x.shape[-1], x.shape[-1] // self.num_queries
        projected = self.projection(x)
        query = projected[..., :channels].reshape(*x.shape[:-1], self.num_queries, width)
        key, value = projected[..., channels : channels + width], projected[..., -width:]
        if self.normalization == "l2":
            normalize = partial(ops.l2_normalize, implementation=self.implementation)
            return normalize(query), normalize(key), normalize(value)
        if self.norms:
            query = self.norms.query(query.reshape(x.shape)).reshape(query.shape)
            value = self.norms.value(value)
        if "key" in self.norms:
            key = self.norms.key(key)
        return query, softmax_over_positions(key) if self.normalization == "lambda" else key, value

    def _as_clips(self, x: Float[Array, "B *N C"]) -> Float[Array, "B T H W C"]:
        if x.ndim != len(self.input_axes.split()):
            raise ValueError(f"expected input axes {self.input_axes} for this window, got shape {x.shape}")
        return x.reshape(x.shape[0], *_as_clip(x.shape[1:-1]), x.shape[-1])

    def weights(self, dtype: DTypeLike) -> equations.RSAWeights:
        """Weights of the equations, cast to `dtype`."""

        def array(param: nnx.Param[Array] | None) -> Array | None:
            return None if param is None else param[...].astype(dtype)

        return equations.RSAWeights(array(self.H2), array(self.H1), array(self.P1), array(self.G), array(self.I))


class FactorizedRSA(nnx.Module):
    """RSA over the window's height and width, then RSA over its frames: y = RSA_t(RSA_s(x)).

    The authors name such a split of the 3D kernel as future work (supplement, limitations). The two layers are applied
    in sequence, as in a (2+1)D convolution: an output depends on the whole window, while a sum of the two would depend
    only on a cross in it. Each layer has its own projection: the temporal layer relates outputs of the spatial one.

    Args:
        channels: of input and output.
        kernel_size: frames, height, width of the window.
        settings: of both layers, as for `RSA`.
    """

    def __init__(self, channels: int, *, kernel_size: KernelSize = (5, 7, 7), **settings: Any):
        check_kernel_size(kernel_size)
        frames, height, width = kernel_size
        self.spatial = RSA(channels, kernel_size=(1, height, width), **settings)
        self.temporal = RSA(channels, kernel_size=(frames, 1, 1), **settings)

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transform a feature map."""
        return self.temporal(self.spatial(x))

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape, `B T H W C`."""
        return self.spatial.macs(shape) + self.temporal.macs(shape)


def _as_clip(sizes: Sequence[int], other: int = 1) -> KernelSize:
    """Sizes in frames, height and width. An image is one frame; a sequence has frames of one pixel."""
    if len(sizes) == 1:
        return sizes[0], other, other
    frames, height, width = sizes if len(sizes) == 3 else (other, *sizes)
    return frames, height, width


def _check_numbers(channels: int, num_queries: int, latent_dim: int | None, relation_groups: int | None) -> None:
    if num_queries < 1 or channels % num_queries:
        raise ValueError(f"num_queries: expected a divisor of the {channels} channels, got {num_queries}")
    if latent_dim is not None and latent_dim < 1:
        raise ValueError(f"latent_dim: expected a positive number or None, got {latent_dim}")
    width = channels // num_queries
    if relation_groups is not None and (relation_groups < 1 or width % relation_groups):
        raise ValueError(
            f"relation_groups: expected a divisor of the {width} channels of a query, or None, got {relation_groups}"
        )


def _check_parts(kernel: str, context: str, normalization: str) -> None:
    for name, part in (("kernel", kernel), ("context", context)):
        if part not in PARTS:
            raise ValueError(f"{name}: expected one of {PARTS}, got {part!r}")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization: expected one of {NORMALIZATIONS}, got {normalization!r}")


def _check_combination(
    width: int, latent_dim: int | None, decomposed: bool, relation_groups: int | None, kernel: str
) -> None:
    if kernel == "V" and latent_dim not in (None, width):
        raise ValueError(f"latent_dim: not used by kernel 'V' (P is not decomposed), got {latent_dim}")
    if kernel == "V" and relation_groups is not None:
        raise ValueError(f"relation_groups: kernel 'V' has no relation, got {relation_groups}")
    if not decomposed and latent_dim is not None:
        raise ValueError(f"latent_dim: not used with decomposed=False, got {latent_dim}")
