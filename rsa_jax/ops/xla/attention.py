"""Attention within a window or over all positions."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rsa_jax.ops.blocks import Blocks, band_matrices, block_rows
from rsa_jax.ops.equations import attention_kernels
from rsa_jax.ops.position_embedding import offset_logits
from rsa_jax.ops.windows import KernelSize

# Query-key products that are held at once.
LOGITS_AT_ONCE = 2**26


def attend_in_window(
    query: Float[Array, "B T H W L c"],
    key: Float[Array, "B T H W #L c"],
    value: Float[Array, "B T H W #L c"],
    offsets: Float[Array, " M #L c"] | None,
    *,
    kernel_size: KernelSize,
    softmax: bool,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Float[Array, "B T H W L c"]:
    """Σ_m softmax_m(q_nᵀ (k_(n+m) + r_m)) v_(n+m) over the window's positions within the feature map.

    Computed as matrix products. Neighbours in time and width form a block, whose queries are multiplied by the keys of
    all their windows at once; keys outside a query's window are masked. A few rows are computed at a time: the keys
    of all rows' windows would take m_h times the memory of the feature map. Attention weights are recomputed for the
    gradients.
    """
    shape, (keys, channels) = query.shape, key.shape[4:]
    axes = _block(shape[1], kernel_size[0]), _block(shape[3], kernel_size[2])
    band = _in_window(jnp.ones((math.prod(kernel_size), 1), key.dtype), kernel_size, axes)[..., 0].T[:, None]  # F 1 m
    relative = None
    if offsets is not None:
        relative = _in_window(offsets.reshape(len(offsets), -1), kernel_size, axes)
        relative = relative.reshape(*relative.shape[:2], keys, channels)
    query = _to_blocks(query, keys, axes)
    at_once = min(shape[2], max(1, logits_at_once // (query[0].size // channels * band.shape[-1])))
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
        wide = jnp.promote_types(query.dtype, jnp.float32)
        logits = jnp.einsum("hbkjifqc,hkcbjim->hbkjifqm", query, key, preferred_element_type=wide)
        if relative is not None:
            logits += jnp.einsum("hbkjifqc,mfkc->hbkjifqm", query, relative, preferred_element_type=wide)
        seen = jnp.expand_dims(inside, (5, 6)) * band > 0
        kernels = attention_kernels(logits, seen, softmax=softmax).astype(value.dtype)
        return jnp.einsum("hbkjifqm,hkcbjim->hbkjifqc", kernels, value)

    query = jnp.pad(query, [(0, beyond)] + [(0, 0)] * (query.ndim - 1))
    starts = jnp.arange(0, len(query), at_once)
    y = jax.lax.map(attend_rows, (query.reshape(-1, at_once, *query.shape[1:]), starts))
    return _from_blocks(y.reshape(query.shape)[: shape[2]], shape, axes)


def _rows(
    x: Float[Array, "B T H W N"], size: int, beyond: int, axes: tuple[Blocks, Blocks]
) -> Float[Array, "H+ N B J I k"]:
    """Block inputs of each row, zero-padded for windows of `size` rows and by `beyond` more rows at the end."""
    x = jnp.pad(x, [(0, 0), (0, 0), (size // 2, size // 2 + beyond), (0, 0), (0, 0)])
    return jnp.moveaxis(block_rows(x, (1, 1, 1), axes), 4, 0)


def _windows(x: Float[Array, "H+ N B J I k"], start: Array, rows: int, size: int) -> Float[Array, "h N B J I m"]:
    """Block inputs of all rows of a window, for `rows` rows from `start` on."""
    part = jax.lax.dynamic_slice_in_dim(x, start, rows + size - 1)
    part = jnp.stack([part[i : i + rows] for i in range(size)], axis=-2)
    return part.reshape(*part.shape[:-2], -1)


def _in_window(x: Float[Array, "M N"], kernel_size: KernelSize, axes: tuple[Blocks, Blocks]) -> Float[Array, "m F N"]:
    """Entries of x for each pair of a block's m keys and F queries, by the key's position in the query's window."""
    bands = band_matrices(x[:, None], kernel_size, axes)[0]
    return bands.reshape(len(bands), -1, x.shape[1])


def _to_blocks(
    query: Float[Array, "B T H W L c"], keys: int, axes: tuple[Blocks, Blocks]
) -> Float[Array, "H B K J I F Q c"]:
    """Queries by row H and block (J in time, I in width) of F positions, with the Q heads of each key K adjacent."""
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
    """The inverse of `_to_blocks`, for a feature map of that shape."""
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
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Float[Array, "B T H W L c"]:
    """Σ_m softmax_m(q_nᵀ (k_m + R s(m - n))) v_m over all positions, for a chunk of queries at a time."""
    of_position = (query,) if embedding is None else (query, *offset_logits(query, embedding))
    # L heads as K keys with Q queries each. The loop is over positions: the batch may be split over devices.
    shape, keys = query.shape, key.shape[4]
    grouped = (x.reshape(shape[0], -1, keys, shape[4] // keys, x.shape[-1]) for x in of_position)

    @jax.checkpoint
    def attend_one(inputs: tuple[Array, ...]) -> Float[Array, "B K Q c"]:
        query, *offsets = inputs
        wide = jnp.promote_types(query.dtype, jnp.float32)
        logits = jnp.einsum("bkqc,bthwkc->bkqthw", query, key, preferred_element_type=wide)
        for axis, offset in enumerate(offsets):
            logits += jnp.expand_dims(offset, [3 + other for other in range(3) if other != axis])
        kernels = attention_kernels(logits.reshape(*logits.shape[:3], -1), softmax=softmax).astype(value.dtype)
        return jnp.einsum("bkqm,bmkc->bkqc", kernels, value.reshape(shape[0], -1, *value.shape[4:]))

    inputs = tuple(jnp.moveaxis(x, 1, 0) for x in grouped)
    y = jax.lax.map(attend_one, inputs, batch_size=max(1, logits_at_once // math.prod(shape[:5])))
    return jnp.moveaxis(y, 0, 1).reshape(shape)


def _block(length: int, size: int) -> Blocks:
    """Blocks of one to two windows: along each axis, a query is multiplied by two to three times the keys it needs."""
    return Blocks(length, size, -(-length // max(1, length // size)))
