"""Crop, resize, flip and normalise a batch of clips on the device.

Crop, resize and flip are one linear map per axis: a matrix of bilinear weights from stored rows (columns) to
output rows (columns). One compiled program therefore serves crops of every offset and size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# TSN's 13 crop offsets as (row, column), in quarters of the free space: corners, centre, edge midpoints, quarter
# points.
CROP_OFFSETS = (
    *((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 0), (2, 4)),
    *((1, 1), (1, 3), (3, 1), (3, 3)),
)

# Separates these keys from others folded from the same seed.
_AUGMENT = 0xA06


def example_keys(seed: int, epoch: Int[Array, " B"], index: Int[Array, " B"]) -> Key[Array, " B"]:
    """One random key per example, a function of (seed, epoch, position in the split) only."""
    root = jax.random.fold_in(jax.random.key(seed), _AUGMENT)
    return jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(root, e), i))(epoch, index)


def crop_sizes(short_side: int, crop_scales: tuple[float, ...], crop_distortion: int) -> np.ndarray:
    """TSN's crop sizes, as rows (height, width) in pixels.

    Each side is int(short_side * scale); the two scales are at most `crop_distortion` entries apart in the list.
    """
    sides = [int(short_side * scale) for scale in crop_scales]
    pairs = [(i, j) for i in range(len(sides)) for j in range(len(sides)) if abs(i - j) <= crop_distortion]
    return np.array([(sides[i], sides[j]) for i, j in pairs], np.int32)


def random_crop(
    key: Key[Array, ""], frame_size: tuple[int, int], sizes: Int[np.ndarray, "N 2"]
) -> tuple[Int[Array, " 2"], Int[Array, " 2"]]:
    """Random crop: first row and column, height and width. One of `sizes` at one of TSN's 13 offsets."""
    size_key, place_key = jax.random.split(key)
    size = jax.random.choice(size_key, jnp.asarray(sizes))
    place = jax.random.choice(place_key, jnp.array(CROP_OFFSETS))
    return place * ((jnp.array(frame_size) - size) // 4), size


def resize_weights(
    start: Int[Array, " B"], length: Int[Array, " B"], size_in: int, size_out: int
) -> Float[Array, "B O I"]:
    """Matrix that resizes `length` of `size_in` pixels, from `start` on, to `size_out` pixels.

    Bilinear, antialiased when downscaling, ignoring pixels outside the crop, as Pillow does for a cropped image.
    Exactly the identity if the crop has `size_out` pixels.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / size_out
    centres = start + (jnp.arange(size_out)[:, None] + 0.5) * scale - 0.5
    pixels = jnp.arange(size_in)[None]
    weights = jnp.maximum(0, 1 - jnp.abs(pixels - centres) / jnp.maximum(scale, 1))
    weights *= (pixels >= start) & (pixels < start + length)
    return weights / weights.sum(-1, keepdims=True)


def _apply(
    frames: UInt8[Array, "B T H W 3"], rows: Float[Array, "B S H"], columns: Float[Array, "B S W"]
) -> Float[Array, "B T S S 3"]:
    # Full float32: matrix units may otherwise round to fewer bits than the 8 of a pixel.
    frames = jnp.einsum("bsh,bthwc->btswc", rows, frames.astype(jnp.float32), precision="highest")
    frames = jnp.einsum("brw,btswc->btsrc", columns, frames, precision="highest")
    return (frames / 255 - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)


def to_pixels(clips: Float[ArrayLike, "*B H W 3"]) -> UInt8[np.ndarray, "*B H W 3"]:
    """Converts normalised clips back to pixels."""
    pixels = (np.asarray(clips) * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)) * 255
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


class Augmented(NamedTuple):
    """A batch of augmented clips, as fed to the network.

    Attributes:
        clips: normalised with ImageNet's mean and standard deviation.
        label: class of each clip; if flipped, the class of its mirror image.
        mirrored: whether each clip is flipped.
        start: first row and column of the crop, in stored pixels.
        size: height and width of the crop, in stored pixels.
    """

    clips: Float[Array, "B T S S 3"]
    label: Int[Array, " B"]
    mirrored: Bool[Array, " B"]
    start: Int[Array, "B 2"]
    size: Int[Array, "B 2"]


def mirror_label(
    label: Int[Array, " B"], flip_pairs: Sequence[Sequence[int]], policy: str
) -> tuple[Bool[Array, " B"], Int[Array, " B"]]:
    """Whether each clip may be flipped, and the class of its mirror image.

    Args:
        label: classes of the clips.
        flip_pairs: pairs (a, b) of classes that a flip exchanges, and (a,) for a class whose mirror image has no class.
        policy: "skip" flips no clip of these classes; "swap" flips those of pairs, which exchanges their classes.

    Raises:
        ValueError: If the policy is neither.
    """
    if policy not in ("skip", "swap"):
        raise ValueError(f"data.flip_policy: expected 'skip' or 'swap', got {policy!r}")
    classes = [c for group in flip_pairs for c in group]
    mirror_classes = [c for group in flip_pairs for c in reversed(group)]
    paired = [policy == "swap" and len(group) == 2 for group in flip_pairs for _ in group]
    match = label[:, None] == jnp.array(classes, jnp.int32)  # at most one per row
    allowed = ~jnp.any(match & ~jnp.array(paired, bool), axis=1)
    return allowed, jnp.where(match.any(1), jnp.sum(match * jnp.array(mirror_classes, jnp.int32), axis=1), label)


def augment(
    frames: UInt8[Array, "B T H W 3"],
    label: Int[Array, " B"],
    keys: Key[Array, " B"],
    *,
    image_size: int,
    crop_scales: tuple[float, ...],
    crop_distortion: int,
    flip: bool,
    flip_pairs: Sequence[Sequence[int]],
    policy: str,
) -> Augmented:
    """TSN's training augmentation: multi-scale crop, flip with probability 1/2, normalisation.

    Args:
        frames: clips as stored.
        label: classes of the clips.
        keys: from `example_keys`; all frames of a clip share crop and flip.
        image_size: S, side of the output in pixels.
        crop_scales: sides of crops, relative to the short side of the stored frames.
        crop_distortion: maximum distance in `crop_scales` between the scales of height and width.
        flip: whether clips are flipped at all.
        flip_pairs: classes that a flip changes, as `ClipBuilder.flip_pairs`.
        policy: treatment of these classes, as in `mirror_label`.

    Raises:
        ValueError: If the policy is unknown.
    """
    height, width = frames.shape[2:4]
    sizes = crop_sizes(min(height, width), crop_scales, crop_distortion)
    crop_keys, flip_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    start, size = jax.vmap(lambda key: random_crop(key, (height, width), sizes))(crop_keys)
    rows = resize_weights(start[:, 0], size[:, 0], height, image_size)
    columns = resize_weights(start[:, 1], size[:, 1], width, image_size)
    allowed, mirror_class = mirror_label(label, flip_pairs, policy)
    mirrored = flip & allowed & jax.vmap(jax.random.bernoulli)(flip_keys)
    columns = jnp.where(mirrored[:, None, None], columns[:, ::-1], columns)
    label = jnp.where(mirrored, mirror_class, label)
    return Augmented(_apply(frames, rows, columns), label, mirrored, start, size)


def square_crop(
    frames: UInt8[Array, "B T H W 3"], place: int | Int[Array, ""], *, image_size: int, eval_crop: float
) -> Float[Array, "B T S S 3"]:
    """Evaluation crop: a square of side round(eval_crop * short side), resized and normalised.

    A square of `image_size` pixels is not resampled.

    Args:
        frames: clips as stored.
        place: crop offset on the long side: 0 start, 1 centre, 2 end. On the short side, the crop is centred.
        image_size: S, side of the output in pixels.
        eval_crop: side of the square, relative to the short side of the stored frames.
    """
    height, width = frames.shape[2:4]
    side = round(eval_crop * min(height, width))
    row_place, column_place = (place, 1) if height > width else (1, place)
    length = jnp.array([side])
    rows = resize_weights(jnp.array([(height - side) * row_place // 2]), length, height, image_size)
    columns = resize_weights(jnp.array([(width - side) * column_place // 2]), length, width, image_size)
    batch = frames.shape[0]
    return _apply(frames, jnp.repeat(rows, batch, 0), jnp.repeat(columns, batch, 0))
