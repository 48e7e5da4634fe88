"""Self-attention in a space-time window or over all positions of a clip."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax import ops
from rsa_jax.nn.layers import Linear
from rsa_jax.ops.equations import attention_kernels
from rsa_jax.ops.position_embedding import SINUSOIDS, offset_logits, place_embedding
from rsa_jax.ops.windows import KernelSize, check_kernel_size, check_position, window_at

POSITIONS = ("none", "relative", "absolute")
KEY_VALUES = ("per_head", "shared")


class SelfAttention(nnx.Module):
    """Self-attention y_n = Σ_m κ_nm v_m with κ_nm = softmax_m(q_nᵀ (k_m + r_(m-n)) / √c), c = channels / num_heads.

    Without softmax, κ_nm = q_nᵀ (k_m + r_(m-n)) / √c.

    m runs over the positions of the window, or of the clip, inside the feature map. Parameters: `projection` to
    queries, keys and values (no bias), and `embedding` of positions. There is no output projection: in a bottleneck, a
    convolution follows.

    | position | | embedding |
    |---|---|---|
    | "none" | r = 0 | None |
    | "relative", window | r: a vector for each position of the window (arXiv 1906.05909) | [M, K, c] |
    | "relative", all positions | r = R s(m - n), with S sinusoids s along each axis | R: [3, S, K, c] |
    | "absolute" | r = 0; E s(n) is added to q_n and k_n | E: [3, S, channels + K c] |

    K is 1 if heads share key and value, else the number of heads. S is `SINUSOIDS`. Sinusoids fit any feature map size.

    Args:
        channels: of input and output.
        num_heads: must divide `channels`.
        key_value: "per_head", or "shared": one key and one value for all heads (multi-query), as in RSA.
        kernel_size: window in frames, height, width; odd numbers. () for all positions.
        position: "none", "relative" or "absolute".
        softmax: whether to normalise the kernels by a softmax over m. If False, the scaled products are the kernels.
        dtype: of the computation; by default promoted from input and parameters. Parameters are float32.
        implementation: of all operations.
        rngs: for the initial weights.

    Memory: the attention weights of all heads for one chunk of positions; the backward pass recomputes them.

    Raises:
        ValueError: If an argument is invalid.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        key_value: str = "per_head",
        kernel_size: KernelSize | tuple[()] = (5, 7, 7),
        position: str = "relative",
        softmax: bool = True,
        dtype: DTypeLike | None = None,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        _check(channels, num_heads, key_value, kernel_size, position)
        self.num_heads, self.position, self.softmax = num_heads, position, softmax
        self.kernel_size = (kernel_size[0], kernel_size[1], kernel_size[2]) if kernel_size else None
        width = channels // num_heads
        self.key_heads = num_heads if key_value == "per_head" else 1
        self.implementation = implementation
        self.projection = Linear(
            channels, channels + 2 * self.key_heads * width, dtype=dtype, implementation=implementation, rngs=rngs
        )
        # Entries of r and of E s start with variance 1, like those of queries and keys, so that position and content
        # have equal weight. The sum of s² is 3 S / 2.
        sinusoid_deviation = (3 * SINUSOIDS / 2) ** -0.5
        embeddings = {
            "none": (None, 0.0),
            "relative": ((3, SINUSOIDS, self.key_heads, width), sinusoid_deviation),
            "absolute": ((3, SINUSOIDS, channels + self.key_heads * width), sinusoid_deviation),
        }
        if kernel_size:
            embeddings["relative"] = ((math.prod(kernel_size), self.key_heads, width), 1.0)
        shape, deviation = embeddings[position]
        self.embedding: Any = nnx.Param(initializers.normal(deviation)(rngs.params(), shape)) if shape else None

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transform a feature map. Output channels are those of the first head, then of the second, and so on."""
        query, key, value = self.project(x)
        embedding = self._relative(key.dtype)
        settings: dict[str, Any] = {"softmax": self.softmax, "implementation": self.implementation}
        if self.kernel_size is None:
            return ops.attend(query, key, value, embedding, **settings).reshape(x.shape)
        y = ops.attend_in_window(query, key, value, embedding, kernel_size=self.kernel_size, **settings)
        return y.reshape(x.shape)

    def kernels(
        self, x: Float[Array, "B T H W C"], position: tuple[int, int, int]
    ) -> dict[str, Float[Array, "B L m_t m_h m_w"]]:
        """Attention weights of each head at one position, over its window or the whole feature map: "attention".

        Weights outside the feature map are 0.

        Args:
            x: the layer's input.
            position: frame, row and column of the query.

        Raises:
            ValueError: If the position is not in the feature map.
        """
        check_position(position, x.shape[1:-1])
        query, key, _ = self.project(x)
        embedding = self._relative(key.dtype)
        at, shape = (slice(None), *position), self.kernel_size or x.shape[1:4]
        wide = jnp.promote_types(query.dtype, jnp.float32)
        if self.kernel_size is None:
            keys, inside = key.reshape(len(x), -1, *key.shape[4:]), jnp.ones((), bool)
        else:
            flat, ones = key.reshape(*key.shape[:4], -1), jnp.ones((1, *key.shape[1:4], 1))
            keys = window_at(flat, position, self.kernel_size).reshape(len(x), -1, *key.shape[4:])
            inside = window_at(ones, position, self.kernel_size)[:, None, :, 0] > 0
        keys = jnp.broadcast_to(keys, (*keys.shape[:2], *query.shape[4:]))
        logits = jnp.einsum("blc,bmlc->blm", query[at], keys, preferred_element_type=wide)
        if self.kernel_size is not None and embedding is not None:
            relative = jnp.broadcast_to(embedding, (len(embedding), *query.shape[4:]))
            logits += jnp.einsum("blc,mlc->blm", query[at], relative, preferred_element_type=wide)
        if self.kernel_size is None and embedding is not None:
            frame, row, column = (offset[at] for offset in offset_logits(query, embedding))
            offsets = frame[..., :, None, None] + row[..., None, :, None] + column[..., None, None, :]
            logits += offsets.reshape(logits.shape)
        kernels = attention_kernels(logits, inside, softmax=self.softmax)
        return {"attention": kernels.reshape(*kernels.shape[:2], *shape)}

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape: projection, qᵀ k, qᵀ r and the weighted sum of values.

        Softmax and E s are not counted. Window positions outside the feature map are counted.
        """
        batch, *axes, channels = shape
        positions = math.prod(axes)
        keys = positions if self.kernel_size is None else math.prod(self.kernel_size)
        per_query = self.projection.kernel.size + 2 * keys * channels
        if self.position == "relative":
            offsets_of_axes = SINUSOIDS * (3 * channels + sum(axes) * self.num_heads)
            per_query += offsets_of_axes if self.kernel_size is None else keys * channels
        return batch * positions * per_query

    def _relative(self, dtype: DTypeLike) -> Array | None:
        return self.embedding[...].astype(dtype) if self.position == "relative" else None

    def project(
        self, x: Float[Array, "B T H W C"]
    ) -> tuple[Float[Array, "B T H W L c"], Float[Array, "B T H W #L c"], Float[Array, "B T H W #L c"]]:
        """Queries of L heads, divided by √c; keys and values of each head, or one shared by all heads."""
        channels, width = x.shape[-1], x.shape[-1] // self.num_heads
        query_key, value = jnp.split(self.projection(x), [channels + self.key_heads * width], axis=-1)
        if self.position == "absolute":
            query_key += place_embedding(x.shape[1:4], self.embedding[...]).astype(query_key.dtype)
        query, key = query_key[..., :channels] * width**-0.5, query_key[..., channels:]
        heads = (*x.shape[:-1], -1, width)
        return query.reshape(heads), key.reshape(heads), value.reshape(heads)


def _check(channels: int, num_heads: int, key_value: str, kernel_size: tuple[int, ...], position: str) -> None:
    if num_heads < 1 or channels % num_heads:
        raise ValueError(f"num_heads: expected a divisor of the {channels} channels, got {num_heads}")
    if key_value not in KEY_VALUES:
        raise ValueError(f"key_value: expected one of {KEY_VALUES}, got {key_value!r}")
    if position not in POSITIONS:
        raise ValueError(f"position: expected one of {POSITIONS}, got {position!r}")
    if kernel_size:
        check_kernel_size(kernel_size)
