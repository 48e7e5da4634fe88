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
from rsa_jax.transforms.windows import (
    Blocks,
    KernelSize,
    band_matrices,
    block_rows,
    check_kernel_size,
    check_position,
    window_at,
)

POSITIONS = ("none", "relative", "absolute")
KEY_VALUES = ("per_head", "shared")

# Sines and cosines of a position along an axis, half of them each, have these wavelengths, in positions.
WAVELENGTHS = tuple(4.0 * 2**i for i in range(8))
SINUSOIDS = 2 * len(WAVELENGTHS)


class SelfAttention(nnx.Module):
    """Self-attention y_n = Σ_m κ_nm v_m with κ_nm = softmax_m(q_nᵀ (k_m + r_(m-n)) / √c), c = channels / num_heads.

    Without softmax, κ_nm = q_nᵀ (k_m + r_(m-n)) / √c.

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
        softmax: normalise the kernels by a softmax over m. False: the scaled products are the kernels.
        dtype: of the computation; None for that of input and parameters. Parameters are float32.
        rngs: for the initial weights.

    Memory: the weights of all heads for a few positions at a time; they are computed again for the gradients.

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
        rngs: nnx.Rngs,
    ):
        _check(channels, num_heads, key_value, kernel_size, position)
        self.num_heads, self.position, self.softmax = num_heads, position, softmax
        self.kernel_size = (kernel_size[0], kernel_size[1], kernel_size[2]) if kernel_size else None
        width = channels // num_heads
        self.keys = num_heads if key_value == "per_head" else 1
        self.projection = nnx.Linear(
            channels, channels + 2 * self.keys * width, use_bias=False, param_dtype=float, dtype=dtype, rngs=rngs
        )
        # Entries of r and of E s start with variance 1, as those of queries and keys: where counts as much as what. The
        # sum of s² is 3 S / 2.
        of_sinusoids = (3 * SINUSOIDS / 2) ** -0.5
        embeddings = {
            "none": (None, 0.0),
            "relative": ((3, SINUSOIDS, self.keys, width), of_sinusoids),
            "absolute": ((3, SINUSOIDS, channels + self.keys * width), of_sinusoids),
        }
        if kernel_size:
            embeddings["relative"] = ((math.prod(kernel_size), self.keys, width), 1.0)
        shape, deviation = embeddings[position]
        self.embedding: Any = nnx.Param(initializers.normal(deviation)(rngs.params(), shape)) if shape else None

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transforms a map. Output channels are those of the first head, then of the second, and so on."""
        query, key, value = self.project(x)
        embedding = self._relative(key.dtype)
        if self.kernel_size is None:
            return attend(query, key, value, embedding, softmax=self.softmax).reshape(x.shape)
        y = attend_in_window(query, key, value, embedding, self.kernel_size, softmax=self.softmax)
        return y.reshape(x.shape)

    def kernels(
        self, x: Float[Array, "B T H W C"], position: tuple[int, int, int]
    ) -> dict[str, Float[Array, "B L m_t m_h m_w"]]:
        """The weights of one position's heads over its window, or over the whole map, by the name "attention".

        Weights outside of the map are 0.

        Args:
            x: the layer's input.
            position: frame, row and column of the query.

        Raises:
            ValueError: the position is not in the map.
        """
        check_position(position, x.shape[1:-1])
        query, key, _ = self.project(x)
        embedding = self._relative(key.dtype)
        at, shape = (slice(None), *position), self.kernel_size or x.shape[1:4]
        if self.kernel_size is None:
            seen, inside = key.reshape(len(x), -1, *key.shape[4:]), jnp.ones((), bool)
        else:
            flat, ones = key.reshape(*key.shape[:4], -1), jnp.ones((1, *key.shape[1:4], 1))
            seen = window_at(flat, position, self.kernel_size).reshape(len(x), -1, *key.shape[4:])
            inside = window_at(ones, position, self.kernel_size)[:, None, :, 0] > 0
        seen = jnp.broadcast_to(seen, (*seen.shape[:2], *query.shape[4:]))
        logits = jnp.einsum("blc,bmlc->blm", query[at], seen, preferred_element_type=_wide(query.dtype))
        if self.kernel_size is not None and embedding is not None:
            relative = jnp.broadcast_to(embedding, (len(embedding), *query.shape[4:]))
            logits += jnp.einsum("blc,mlc->blm", query[at], relative, preferred_element_type=_wide(query.dtype))
        if self.kernel_size is None and embedding is not None:
            frame, row, column = (offset[at] for offset in offset_logits(query, embedding))
            offsets = frame[..., :, None, None] + row[..., None, :, None] + column[..., None, None, :]
            logits += offsets.reshape(logits.shape)
        kernels = _to_kernels(logits, inside, softmax=self.softmax)
        return {"attention": kernels.reshape(*kernels.shape[:2], *shape)}

    def multiply_adds(self, shape: tuple[int, ...]) -> int:
        """Of a map of that shape: projection, qᵀ k, qᵀ r and the sum of values; softmax and E s left out.

        Positions of the window count wherever they lie.
        """
        batch, *axes, channels = shape
        positions = math.prod(axes)
        seen = positions if self.kernel_size is None else math.prod(self.kernel_size)
        each = self.projection.kernel.size + 2 * seen * channels
        if self.position == "relative":
            everywhere = SINUSOIDS * (3 * channels + sum(axes) * self.num_heads)
            each += everywhere if self.kernel_size is None else seen * channels
        return batch * positions * each

    def _relative(self, dtype: DTypeLike) -> Array | None:
        return self.embedding[...].astype(dtype) if self.position == "relative" else None

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


def attend_in_window(
    query: Float[Array, "B T H W L c"],
    key: Float[Array, "B T H W #L c"],
    value: Float[Array, "B T H W #L c"],
    offsets: Float[Array, "M #L c"] | None,
    kernel_size: KernelSize,
    *,
    softmax: bool,
) -> Float[Array, "B T H W L c"]:
    """Σ_m softmax_m(q_nᵀ (k_(n+m) + r_m)) v_(n+m) over the window's positions in the map.

    As products of matrices: neighbours in time and width form a block, whose queries meet the keys of all their
    windows at once; keys that are not in a query's window are masked. Some rows at a time: the keys of all rows'
    windows would be as many times the map as the window has rows.

    Args:
        query: divided by √c.
        key: of all positions.
        value: likewise.
        offsets: r; None for 0.
        kernel_size: of the window.
        softmax: False for Σ_m q_nᵀ (k_(n+m) + r_m) v_(n+m).
    """
    shape, (keys, channels) = query.shape, key.shape[4:]
    axes = _block(shape[1], kernel_size[0]), _block(shape[3], kernel_size[2])
    band = _in_window(jnp.ones((math.prod(kernel_size), 1), key.dtype), kernel_size, axes)[..., 0].T[:, None]  # F 1 m
    relative = None
    if offsets is not None:
        relative = _in_window(offsets.reshape(len(offsets), -1), kernel_size, axes)
        relative = relative.reshape(*relative.shape[:2], keys, channels)
    query = _to_blocks(query, keys, axes)
    at_once = min(shape[2], _at_once(query[0].size // channels * band.shape[-1]))
    beyond = -shape[2] % at_once
    all_keys, all_values, in_map = (
        _rows(x, kernel_size[1], beyond, axes)
        for x in (key.reshape(*shape[:4], -1), value.reshape(*shape[:4], -1), jnp.ones((1, *shape[1:4], 1), key.dtype))
    )

    @jax.checkpoint
    def attend_rows(inputs: tuple[Array, Array]) -> Float[Array, "h B K J I F Q c"]:
        query, start = inputs
        key, value, inside = (_windows(x, start, at_once, kernel_size[1]) for x in (all_keys, all_values, in_map))
        key, value = (x.reshape(at_once, keys, channels, *x.shape[2:]) for x in (key, value))
        wide = _wide(query.dtype)
        logits = jnp.einsum("hbkjifqc,hkcbjim->hbkjifqm", query, key, preferred_element_type=wide)
        if relative is not None:
            logits += jnp.einsum("hbkjifqc,mfkc->hbkjifqm", query, relative, preferred_element_type=wide)
        seen = jnp.expand_dims(inside, (5, 6)) * band > 0
        kernels = _to_kernels(logits, seen, softmax=softmax).astype(value.dtype)
        return jnp.einsum("hbkjifqm,hkcbjim->hbkjifqc", kernels, value)

    query = jnp.pad(query, [(0, beyond)] + [(0, 0)] * (query.ndim - 1))
    starts = jnp.arange(0, len(query), at_once)
    y = jax.lax.map(attend_rows, (query.reshape(-1, at_once, *query.shape[1:]), starts))
    return _from_blocks(y.reshape(query.shape)[: shape[2]], shape, axes)


def _rows(
    x: Float[Array, "B T H W N"], size: int, beyond: int, axes: tuple[Blocks, Blocks]
) -> Float[Array, "H+ N B J I k"]:
    """What blocks meet in each row, with rows of zeros for windows of that size, and for so many rows beyond."""
    x = jnp.pad(x, [(0, 0), (0, 0), (size // 2, size // 2 + beyond), (0, 0), (0, 0)])
    return jnp.moveaxis(block_rows(x, (1, 1, 1), axes), 4, 0)


def _windows(x: Float[Array, "H+ N B J I k"], start: Array, rows: int, size: int) -> Float[Array, "h N B J I m"]:
    """Of so many rows h from a first one, what blocks meet in each row of their windows."""
    part = jax.lax.dynamic_slice_in_dim(x, start, rows + size - 1)
    part = jnp.stack([part[i : i + rows] for i in range(size)], axis=-2)
    return part.reshape(*part.shape[:-2], -1)


def _in_window(x: Float[Array, "M N"], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]) -> Float[Array, "m F N"]:
    """What belongs to a position of the window, for all keys that a block meets and each of its F queries."""
    bands = band_matrices(x[:, None], kernel_size, axes)[0]
    return bands.reshape(len(bands), -1, x.shape[1])


def _to_blocks(
    query: Float[Array, "B T H W L c"], keys: int, axes: tuple[Blocks, Blocks]
) -> Float[Array, "H B K J I F Q c"]:
    """Rows of blocks in time J and width I, each of F positions, with the Q heads of each key side by side."""
    batch, _, height, _, heads, channels = query.shape
    time, width = axes
    beyond_time, beyond_width = ((0, axis.blocks * axis.block - axis.length) for axis in axes)
    x = jnp.pad(query, ((0, 0), beyond_time, (0, 0), beyond_width, (0, 0), (0, 0)))
    x = x.reshape(batch, time.blocks, time.block, height, width.blocks, width.block, keys, heads // keys, channels)
    x = x.transpose(3, 0, 6, 1, 4, 2, 5, 7, 8)  # H B K J I t w Q c
    return x.reshape(*x.shape[:5], -1, *x.shape[7:])


def _from_blocks(
    y: Float[Array, "H B K J I F Q c"], shape: tuple[int, ...], axes: tuple[Blocks, Blocks]
) -> Float[Array, "B T H W L c"]:
    """The map of that shape, from what `_to_blocks` makes of it."""
    time, width = axes
    y = y.reshape(*y.shape[:5], time.block, width.block, *y.shape[6:])
    y = y.transpose(1, 3, 5, 0, 4, 6, 2, 7, 8)  # B J t H I w K Q c
    y = y.reshape(shape[0], time.blocks * time.block, shape[2], width.blocks * width.block, *shape[4:])
    return y[:, : time.length, :, : width.length]


def attend(
    query: Float[Array, "B T H W L c"],
    key: Float[Array, "B T H W #L c"],
    value: Float[Array, "B T H W #L c"],
    embedding: Float[Array, "3 S #L c"] | None,
    *,
    softmax: bool,
) -> Float[Array, "B T H W L c"]:
    """Σ_m softmax_m(q_nᵀ (k_m + R s(m - n))) v_m over all positions.

    Args:
        query: divided by √c.
        key: of all positions.
        value: likewise.
        embedding: R; None for 0.
        softmax: False for Σ_m q_nᵀ (k_m + R s(m - n)) v_m.
    """
    of_position = (query,) if embedding is None else (query, *offset_logits(query, embedding))
    # L heads as K keys with Q queries each, and positions first: the batch may be split over devices.
    shape, keys = query.shape, key.shape[4]
    grouped = (x.reshape(shape[0], -1, keys, shape[4] // keys, x.shape[-1]) for x in of_position)

    @jax.checkpoint
    def attend_one(inputs: tuple[Array, ...]) -> Float[Array, "B K Q c"]:
        query, *offsets = inputs
        wide = _wide(query.dtype)
        logits = jnp.einsum("bkqc,bthwkc->bkqthw", query, key, preferred_element_type=wide)
        for axis, offset in enumerate(offsets):
            logits += jnp.expand_dims(offset, [3 + other for other in range(3) if other != axis])
        kernels = _to_kernels(logits.reshape(*logits.shape[:3], -1), softmax=softmax).astype(value.dtype)
        return jnp.einsum("bkqm,bmkc->bkqc", kernels, value.reshape(shape[0], -1, *value.shape[4:]))

    inputs = tuple(jnp.moveaxis(x, 1, 0) for x in grouped)
    y = jax.lax.map(attend_one, inputs, batch_size=_at_once(math.prod(shape[:5])))
    return jnp.moveaxis(y, 0, 1).reshape(shape)


def _wide(dtype: DTypeLike) -> DTypeLike:
    return jnp.promote_types(dtype, jnp.float32)


def _to_kernels(logits: Float[Array, "*N m"], inside: Array | None = None, *, softmax: bool) -> Float[Array, "*N m"]:
    """Kernels: the softmax of the logits over the last axis, or the logits themselves. 0 where not inside."""
    if inside is not None:
        # Not -inf: of queries that fill up the last block, nothing may be inside, and gradients of 0 / 0 are not 0.
        logits = jnp.where(inside, logits, jnp.finfo(logits.dtype).min if softmax else 0)
    return jax.nn.softmax(logits, axis=-1) if softmax else logits


def _block(length: int, size: int) -> Blocks:
    """Blocks of one to two windows: along each axis, a query meets two to three times the keys that it needs."""
    return Blocks(length, size, -(-length // max(1, length // size)))


def _at_once(logits: int) -> int:
    """How many steps with so many logits are computed at once. On a CPU, few: what leaves its cache takes longer."""
    return max(1, (2**18 if jax.default_backend() == "cpu" else 2**26) // logits)


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
