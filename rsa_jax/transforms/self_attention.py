"""Self-attention, in a window of space and time or over all positions of a clip."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsa_jax.layers import at_positions
from rsa_jax.transforms.windows import KernelSize, check_kernel_size, map_window, sum_window

POSITIONS = ("none", "relative", "absolute")
KEY_VALUES = ("per_head", "shared")

# Sines and cosines of a position along an axis, half of them each, have these wavelengths, in positions.
WAVELENGTHS = tuple(4.0 * 2**i for i in range(8))
SINUSOIDS = 2 * len(WAVELENGTHS)

# Entries of the attention over all positions that are computed at once, of one clip.
CHUNK = 2**22


class SelfAttention(nnx.Module):
    """Self-attention y_n = Σ_m softmax_m(q_nᵀ (k_m + r_(m-n)) / √c) v_m, with c = channels / num_heads.

    m runs over the positions of the window, or of the clip, that lie in the map. Parameters: `projection` to queries,
    keys and values (no bias), and `embedding` of positions. There is no projection of the output: in a bottleneck, a
    convolution follows.

    | position | | embedding |
    |---|---|---|
    | "none" | r = 0 | None |
    | "relative", window | r: a vector for each position of the window (arXiv 1906.05909) | [M, K, c] |
    | "relative", all positions | r = R s(m - n), with S sinusoids s along each axis | R: [3, S, K, c] |
    | "absolute" | r = 0; E s(n) is added to q_n and k_n | E: [3, S, channels + K c] |

    K is 1 where heads share key and value, else the number of heads; S = `SINUSOIDS`. Sinusoids fit a map of any size.

    Args:
        channels: of input and output.
        num_heads: has to divide `channels`.
        key_value: "per_head", or "shared": one key and one value for all heads (multi-query), as in RSA.
        kernel_size: window in frames, height, width; odd numbers. () for all positions.
        position: "none", "relative" or "absolute".
        dtype: of the computation; None for that of input and parameters. Parameters are float32.
        rngs: for the initial weights.

    Memory: heads times M numbers at each position in a window. Over all positions, queries are computed a few at a
    time, and again for the gradients.

    Raises:
        ValueError: an argument is none of these, in words.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        key_value: str = "per_head",
        kernel_size: KernelSize | tuple[()] = (5, 7, 7),
        position: str = "relative",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        _check(channels, num_heads, key_value, kernel_size, position)
        self.num_heads, self.position = num_heads, position
        self.kernel_size = (kernel_size[0], kernel_size[1], kernel_size[2]) if kernel_size else None
        width = channels // num_heads
        self.keys = num_heads if key_value == "per_head" else 1
        self.projection = nnx.Linear(
            channels, channels + 2 * self.keys * width, use_bias=False, param_dtype=float, dtype=dtype, rngs=rngs
        )
        shapes = {
            "none": None,
            "relative": (*([math.prod(kernel_size)] if kernel_size else [3, SINUSOIDS]), self.keys, width),
            "absolute": (3, SINUSOIDS, channels + self.keys * width),
        }
        shape = shapes[position]
        self.embedding: Any = nnx.Param(initializers.normal(0.02)(rngs.params(), shape)) if shape else None

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transforms a map. Output channels are those of the first head, then of the second, and so on."""
        query, key, value = self.project(x)
        embedding = self.embedding[...].astype(key.dtype) if self.position == "relative" else None
        if self.kernel_size is None:
            return attend(query, key, value, embedding).reshape(x.shape)
        kernels = window_kernels(query, key, embedding, self.kernel_size)
        return sum_values(kernels.astype(value.dtype), value, self.kernel_size).reshape(x.shape)

    def kernels(
        self, x: Float[Array, "B T H W C"], position: tuple[int, int, int]
    ) -> dict[str, Float[Array, "B L m_t m_h m_w"]]:
        """The weights of one position's heads over its window, or over the whole map, by the name "attention".

        Args:
            x: the layer's input.
            position: frame, row and column of the query.
        """
        query, key, _ = self.project(x)
        embedding = self.embedding[...].astype(key.dtype) if self.position == "relative" else None
        at = (slice(None), *position)
        if self.kernel_size is not None:
            kernels = window_kernels(query, key, embedding, self.kernel_size)  # M B T H W L
            kernels = jnp.moveaxis(kernels[(slice(None), *at)], 0, -1)
            return {"attention": kernels.reshape(*kernels.shape[:2], *self.kernel_size)}
        key = jnp.broadcast_to(key, (*key.shape[:4], *query.shape[4:]))
        logits = jnp.einsum("blc,bthwlc->blthw", query[at], key)
        if embedding is not None:
            frame, row, column = (offset[at] for offset in offset_logits(query, embedding))
            logits += frame[..., :, None, None] + row[..., None, :, None] + column[..., None, None, :]
        return {"attention": jax.nn.softmax(logits, axis=(2, 3, 4))}

    def multiply_adds(self, shape: tuple[int, ...]) -> int:
        """Of a map of that shape: projection, embedding, q k and the sum of values, softmax left out.

        Positions of the window count wherever they lie.
        """
        batch, *axes, channels = shape
        positions = math.prod(axes)
        seen = positions if self.kernel_size is None else math.prod(self.kernel_size)
        each = self.projection.kernel.size + 2 * seen * channels
        if self.position == "absolute":
            each += self.embedding.size
        elif self.position == "relative" and self.kernel_size is None:
            each += SINUSOIDS * (3 * channels + sum(axes) * self.num_heads)
        return batch * positions * each

    def project(
        self, x: Float[Array, "B T H W C"]
    ) -> tuple[Float[Array, "B T H W L c"], Float[Array, "B T H W #L c"], Float[Array, "B T H W #L c"]]:
        """Queries of L heads, divided by √c; keys and values of each head, or one for all."""
        channels, width = x.shape[-1], x.shape[-1] // self.num_heads
        query_key, value = jnp.split(at_positions(self.projection, x), [channels + self.keys * width], axis=-1)
        if self.position == "absolute":
            query_key += place_embedding(x.shape[1:4], self.embedding[...]).astype(query_key.dtype)
        query, key = query_key[..., :channels] * width**-0.5, query_key[..., channels:]
        heads = (*x.shape[:-1], -1, width)
        return query.reshape(heads), key.reshape(heads), value.reshape(heads)


def window_kernels(
    query: Float[Array, "B T H W L c"],
    key: Float[Array, "B T H W #L c"],
    offsets: Float[Array, "M #L c"] | None,
    kernel_size: KernelSize,
) -> Float[Array, "M B T H W L"]:
    """κ[m, n] = softmax_m(q_nᵀ (k_(n+m) + r_m)) over the window's positions in the map; in float32 or better.

    Args:
        query: divided by √c.
        key: of all positions.
        offsets: r; None for 0.
        kernel_size: of the window.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)

    def logits(key: Array, inside: Array, *offset: Array) -> Float[Array, "B T H W L"]:
        key = key + offset[0] if offset else key
        # Heads that share a key stay one axis: with two, of which one is 1, the gradient crashes XLA on the CPU
        # (jaxlib 0.10.2).
        return jnp.where(inside[..., None], jnp.sum(query * key, axis=-1, dtype=wide), -jnp.inf)

    inside = jnp.ones((1, *key.shape[1:4]), bool)
    each = () if offsets is None else (offsets,)
    scores = map_window(logits, (key, inside), kernel_size, *each)
    # In two axes: XLA's sums over the first of six take a hundred times as long on a CPU.
    return jax.nn.softmax(scores.reshape(len(scores), -1), axis=0).reshape(scores.shape)


def sum_values(
    kernels: Float[Array, "M B T H W L"], value: Float[Array, "B T H W #L c"], kernel_size: KernelSize
) -> Float[Array, "B T H W L c"]:
    """Σ_m κ[m, n] v[n + m] over a window."""
    return sum_window(lambda value, kernel: kernel[..., None] * value, (value,), kernel_size, kernels)


def attend(
    query: Float[Array, "B T H W L c"],
    key: Float[Array, "B T H W #L c"],
    value: Float[Array, "B T H W #L c"],
    embedding: Float[Array, "3 S #L c"] | None,
) -> Float[Array, "B T H W L c"]:
    """Σ_m softmax_m(q_nᵀ (k_m + R s(m - n))) v_m over all positions; softmax in float32 or better.

    Args:
        query: divided by √c.
        key: of all positions.
        value: likewise.
        embedding: R; None for 0.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    of_position = (query,) if embedding is None else (query, *offset_logits(query, embedding))
    # L heads as K keys with Q queries each, and positions first: the batch may be split over devices.
    shape, keys = query.shape, key.shape[4]
    grouped = (x.reshape(shape[0], -1, keys, shape[4] // keys, x.shape[-1]) for x in of_position)

    @jax.checkpoint
    def attend_one(inputs: tuple[Array, ...]) -> Float[Array, "B K Q c"]:
        query, *offsets = inputs
        logits = jnp.einsum("bkqc,bthwkc->bkqthw", query, key, preferred_element_type=wide)
        for axis, offset in enumerate(offsets):
            logits += jnp.expand_dims(offset, [3 + other for other in range(3) if other != axis])
        kernel = jax.nn.softmax(logits, axis=(3, 4, 5)).astype(value.dtype)
        return jnp.einsum("bkqthw,bthwkc->bkqc", kernel, value)

    inputs = tuple(jnp.moveaxis(x, 1, 0) for x in grouped)
    y = jax.lax.map(attend_one, inputs, batch_size=max(1, CHUNK // math.prod(shape[1:5])))
    return jnp.moveaxis(y, 0, 1).reshape(shape)


def offset_logits(
    query: Float[Array, "B T H W L c"], embedding: Float[Array, "3 S #L c"]
) -> tuple[Float[Array, "B T H W L length"], ...]:
    """q_nᵀ R s(m - n) as a sum of three, which depend on the frame, the row and the column of m.

    By the sine and cosine of a difference, each is a product of m's sinusoids and of n's.
    """
    logits = []
    for axis, weights in enumerate(embedding):
        places = sinusoids(query.shape[1 + axis])
        others = [other for other in range(4) if other != axis]  # of T H W L
        sine, cosine = jnp.split(jnp.expand_dims(places, others), 2, axis=-1)
        weights = jnp.broadcast_to(weights, (weights.shape[0], *query.shape[4:]))
        by_sine, by_cosine = jnp.split(jnp.einsum("...lc,slc->...ls", query, weights), 2, axis=-1)
        turned = [by_sine * cosine + by_cosine * sine, by_cosine * cosine - by_sine * sine]
        logits.append(jnp.concatenate(turned, axis=-1) @ places.T)
    return tuple(logits)


def place_embedding(axes: Sequence[int], embedding: Float[Array, "3 S C"]) -> Float[Array, "T H W C"]:
    """E s(n) of every position n."""
    frames, rows, columns = (sinusoids(length) @ weights for length, weights in zip(axes, embedding, strict=True))
    return frames[:, None, None] + rows[:, None] + columns


def sinusoids(length: int) -> Float[Array, "length S"]:
    """Sines, then cosines, of every position along an axis."""
    angles = 2 * jnp.pi * jnp.arange(length, dtype=float)[:, None] / jnp.asarray(WAVELENGTHS)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _check(channels: int, num_heads: int, key_value: str, kernel_size: tuple[int, ...], position: str) -> None:
    if num_heads < 1 or channels % num_heads:
        raise ValueError(f"num_heads: expected a divisor of the {channels} channels, got {num_heads}")
    if key_value not in KEY_VALUES:
        raise ValueError(f"key_value: expected one of {KEY_VALUES}, got {key_value!r}")
    if position not in POSITIONS:
        raise ValueError(f"position: expected one of {POSITIONS}, got {position!r}")
    if kernel_size:
        check_kernel_size(kernel_size)
