"""The lambda layer of LambdaNetworks as a Flax layer."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax import ops
from rsa_jax.nn.layers import BatchNorm, Linear, softmax_over_positions
from rsa_jax.ops.windows import KernelSize, check_kernel_size


class LambdaLayer(nnx.Module):
    """The lambda layer (Bello, arXiv 2102.08602), with queries that share one key and one value.

    y_n = (λ^c + λ^p_n)ᵀ q_n, with the content lambda λ^c = Σ_m softmax_m(k_m) v_mᵀ over all positions and the position
    lambda λ^p_n = Σ_m e_m v_(n+m)ᵀ over the window. The position lambda by itself is RSA's basic kernel on its basic
    context, with P = E. BatchNorm is applied to queries and value. The intra-depth is 1.

    Parameters: `projection` to queries, key and value (no bias), `E` [M, k], `query_norm`, `value_norm`.

    Args:
        channels: of input and output.
        num_queries: L; must divide `channels`.
        key_channels: k, of the key and of each query.
        kernel_size: window in frames, height, width; odd numbers. It may exceed the feature map.
        batch_norm_clips: ghost batch size of BatchNorm in training; 0 for the whole batch.
        dtype: of the computation; by default promoted from input and parameters. Parameters are float32.
        implementation: of all operations.
        rngs: for the initial weights.

    Raises:
        ValueError: If an argument is invalid; the message names it.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_queries: int = 8,
        key_channels: int = 16,
        kernel_size: KernelSize = (5, 7, 7),
        batch_norm_clips: int = 0,
        dtype: DTypeLike | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        check_kernel_size(kernel_size)
        if num_queries < 1 or channels % num_queries:
            raise ValueError(f"num_queries: expected a divisor of the {channels} channels, got {num_queries}")
        if key_channels < 1:
            raise ValueError(f"key_channels: expected a positive number, got {key_channels}")
        self.num_queries, self.key_channels = num_queries, key_channels
        self.kernel_size: KernelSize = (kernel_size[0], kernel_size[1], kernel_size[2])
        width, queries = channels // num_queries, num_queries * key_channels
        self.implementation = implementation
        self.projection = Linear(
            channels, queries + key_channels + width, dtype=dtype, implementation=implementation, rngs=rngs
        )
        self.query_norm = BatchNorm(queries, clips=batch_norm_clips, implementation=implementation)
        self.value_norm = BatchNorm(width, clips=batch_norm_clips, implementation=implementation)
        positions = math.prod(kernel_size)
        self.E = nnx.Param(initializers.normal(key_channels**-0.5)(rngs.params(), (positions, key_channels)))

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transform a feature map. Output channels are those of the first query, then of the second, and so on."""
        queries = self.num_queries * self.key_channels
        query, key, value = jnp.split(self.projection(x), [queries, queries + self.key_channels], -1)
        query, value = self.query_norm(query), self.value_norm(value)
        content = jnp.einsum("bthwk,bthwv->bkv", softmax_over_positions(key), value)
        embeddings = self.E[...].astype(value.dtype)
        settings: dict[str, Any] = {"kernel_size": self.kernel_size, "implementation": self.implementation}
        position = ops.window_sums(value, embeddings[:, None], **settings)
        lambdas = content[:, None, None, None] + jnp.swapaxes(position, -1, -2)
        query = query.reshape(*x.shape[:-1], self.num_queries, self.key_channels)
        return ops.products(query, lambdas, implementation=self.implementation).reshape(x.shape)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape, `B T H W C`."""
        width = shape[-1] // self.num_queries
        lambdas = (1 + math.prod(self.kernel_size)) * self.key_channels * width
        return math.prod(shape[:-1]) * (self.projection.kernel.size + lambdas + self.key_channels * shape[-1])
