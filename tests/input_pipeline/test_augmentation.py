import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rsa_jax.input_pipeline import augmentation as augment_lib
from rsa_jax.input_pipeline.augmentation import (
    CROP_OFFSETS,
    augment,
    crop_sizes,
    example_keys,
    mirror_label,
    resize_weights,
    square_crop,
)
from rsa_jax.preparation.datasets import motion

MEAN, STD = np.array(augment_lib.IMAGENET_MEAN), np.array(augment_lib.IMAGENET_STD)
RECIPE = {
    "crop_scales": (1.0, 0.875, 0.75, 0.66),
    "crop_distortion": 1,
    "flip": True,
    "flip_pairs": (),
    "policy": "skip",
}


def random_frames(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def pixels(clips):
    return (np.asarray(clips, np.float64) * STD + MEAN) * 255


def keys(count, seed=0, epoch=0):
    return example_keys(seed, jnp.full(count, epoch), jnp.arange(count))


def test_crop_sizes():
    sizes = crop_sizes(240, (1.0, 0.875, 0.75, 0.66), 1).tolist()
    assert sizes[:3] == [[240, 240], [240, 210], [210, 240]]
    assert len(sizes) == 10
    assert [240, 180] not in sizes
    assert sizes[-1] == [158, 158]


def test_every_place_and_size_is_reached_inside_the_frame():
    sizes = crop_sizes(240, (1.0, 0.875, 0.75, 0.66), 1)
    start, size = jax.vmap(lambda key: augment_lib.random_crop(key, (240, 320), sizes))(keys(4000))
    assert len({tuple(s) for s in np.asarray(size).tolist()}) == len(sizes)
    assert (start >= 0).all()
    assert (np.asarray(start + size) <= (240, 320)).all()
    smallest = np.asarray(start)[(np.asarray(size) == 158).all(1)]
    steps = np.array([(240 - 158) // 4, (320 - 158) // 4])
    assert {tuple(s) for s in smallest.tolist()} == {tuple(p * steps) for p in np.array(CROP_OFFSETS)}
    assert len(set(CROP_OFFSETS)) == 13


@pytest.mark.parametrize("box", [(0, 0, 60, 60), (7, 3, 50, 64), (10, 12, 31, 20), (3, 5, 20, 35)])
def test_resize_agrees_with_pillow(box):
    top, left, height, width = box
    frames = random_frames((1, 1, 60, 80))
    rows = resize_weights(jnp.array([top]), jnp.array([height]), 60, 32)
    columns = resize_weights(jnp.array([left]), jnp.array([width]), 80, 32)
    ours = pixels(augment_lib._apply(frames, rows, columns))[0, 0]
    crop = Image.fromarray(frames[0, 0]).crop((left, top, left + width, top + height))
    theirs = np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR), np.float64)
    assert np.abs(ours - theirs).max() < 1.1  # Pillow rounds to integers twice


def test_evaluation_takes_exact_pixels():
    frames = random_frames((2, 3, 24, 32))
    clips = square_crop(frames, 1, image_size=20, eval_crop=20 / 24)
    np.testing.assert_allclose(pixels(clips), frames[:, :, 2:22, 6:26], atol=1e-3)
    assert clips.dtype == jnp.float32


@pytest.mark.parametrize("place, start", [(0, 0), (1, 5), (2, 11)])
def test_evaluation_crops_lie_along_the_long_side(place, start):
    frames = random_frames((1, 2, 24, 31))
    crop = functools.partial(square_crop, image_size=20, eval_crop=20 / 24)
    expected = frames[:, :, 2:22, start : start + 20]
    np.testing.assert_allclose(pixels(jax.jit(crop)(frames, place)), expected, atol=1e-3)
    upright = pixels(crop(frames.swapaxes(2, 3), place))
    np.testing.assert_allclose(upright, expected.swapaxes(2, 3), atol=1e-3)


def test_evaluation_resizes():
    frames = random_frames((1, 1, 24, 32))
    clips = square_crop(frames, 1, image_size=12, eval_crop=1.0)
    crop = Image.fromarray(frames[0, 0]).crop((4, 0, 28, 24)).resize((12, 12), Image.Resampling.BILINEAR)
    assert np.abs(pixels(clips)[0, 0] - np.asarray(crop)).max() < 1.1


@pytest.mark.parametrize(
    "change, kept, swapped",
    [
        ({}, [1, 2, 4], {}),
        ({"policy": "swap"}, [4], {1: 2, 2: 1}),
        ({"flip_pairs": (), "policy": "swap"}, [], {}),
        ({"flip": False, "policy": "swap"}, range(5), {}),
    ],
)
def test_flip_pairs(change, kept, swapped):
    """Which of classes 0 to 4 are never mirrored (`kept`), and which change their label when mirrored (`swapped`)."""
    gradient = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 8, (160, 1, 24, 32, 3))
    label = np.arange(160) % 5
    recipe = RECIPE | {"flip_pairs": ((1, 2), (4,))} | change
    clips, labels, mirrored, *_ = augment(gradient, label, keys(160), image_size=16, **recipe)
    np.testing.assert_array_equal(mirrored, clips[:, 0, 0, 0, 0] > clips[:, 0, 0, -1, 0])
    for k in range(5):
        here = np.asarray(mirrored)[label == k]
        assert not here.any() if k in kept else 6 < here.sum() < 26
        np.testing.assert_array_equal(np.asarray(labels)[label == k], np.where(here, swapped.get(k, k), k))


def test_the_mirror_image_of_a_mirror_image_has_the_first_class():
    label = jnp.arange(10)
    _, image = mirror_label(label, motion.FLIP_PAIRS, "swap")
    assert image.tolist() == [1, 0, 2, 3, 4, 5, 7, 6, 8, 9]
    np.testing.assert_array_equal(mirror_label(image, motion.FLIP_PAIRS, "swap")[1], label)


def test_unknown_policy():
    with pytest.raises(ValueError, match=r"data.flip_policy: expected 'skip' or 'swap', got 'never'"):
        mirror_label(jnp.arange(2), (), "never")


def test_flip_mirrors_exactly():
    frames = random_frames((16, 1, 20, 20))
    recipe = RECIPE | {"crop_scales": (1.0,), "crop_distortion": 0}
    clips = pixels(augment(frames, np.zeros(16, int), keys(16), image_size=20, **recipe).clips)
    same = [np.abs(c - f).max() < 1e-3 for c, f in zip(clips, frames, strict=True)]
    mirrored = [np.abs(c[:, :, ::-1] - f).max() < 1e-3 for c, f in zip(clips, frames, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(mirrored) < 16


def test_a_clip_depends_on_its_key_alone():
    frames, label = random_frames((4, 2, 24, 32)), np.zeros(4, int)
    apply = jax.jit(lambda *batch: augment(*batch, image_size=16, **RECIPE).clips)
    clips = apply(frames, label, keys(4))
    np.testing.assert_array_equal(clips, apply(frames, label, keys(4)))
    np.testing.assert_allclose(
        clips[2:], augment(frames[2:], label[2:], keys(4)[2:], image_size=16, **RECIPE).clips, atol=1e-5
    )
    assert (clips != apply(frames, label, keys(4, epoch=1))).any()
    assert (clips != apply(frames, label, keys(4, seed=1))).any()


def test_frames_of_a_clip_share_their_crop():
    frames = np.repeat(random_frames((3, 1, 24, 32)), 4, axis=1)
    clips = augment(frames, np.zeros(3, int), keys(3), image_size=16, **RECIPE).clips
    np.testing.assert_array_equal(clips, jnp.repeat(clips[:, :1], 4, axis=1))
