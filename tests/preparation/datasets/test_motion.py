import numpy as np
import pytest

from rsa_jax.preparation.clip import encode_clip
from rsa_jax.preparation.datasets import make_builder, make_config, motion
from rsa_jax.preparation.store import data_path

SIZE = (36, 36)


@pytest.mark.parametrize("pair", range(5))
def test_pairs_are_each_other_reversed_in_time(pair):
    forward = motion.draw((0, 0, 7), 2 * pair, 12, SIZE)
    backward = motion.draw((0, 0, 7), 2 * pair + 1, 12, SIZE)
    np.testing.assert_array_equal(forward, backward[::-1])
    assert (forward[0] != forward[-1]).any()


def test_a_single_frame_has_the_same_distribution_in_every_class():
    """Mean and spread of every quantity over clips and frames."""
    rng = np.random.default_rng(0)
    samples = [np.stack([motion.trajectory(rng, k, 12) for _ in range(1500)]) for k in range(10)]
    states = np.stack([s.transpose(1, 0, 2).reshape(5, -1) for s in samples])
    mean, spread = states.mean(2), states.std(2)
    assert (np.abs(mean - mean.mean(0)) < 0.1 * spread.mean(0)).all()
    assert (np.abs(spread / spread.mean(0) - 1) < 0.1).all()


def test_every_class_moves_its_quantity_alone_and_visibly():
    rng = np.random.default_rng(0)
    for label in range(10):
        states = motion.trajectory(rng, label, 12)
        change = states[:, -1] - states[:, 0]
        moving = label // 2
        assert np.flatnonzero(change).tolist() == [moving]
        step = change[moving] * (-1 if label % 2 else 1)
        low, high = [(-0.95, -0.65), (-0.95, -0.65), (0.46, 0.65), (1.04, 3.15), (-1.0, -0.78)][moving]
        assert low <= step <= high


def test_flip_pairs():
    pairs = [tuple(motion.CLASS_NAMES[i] for i in pair) for pair in motion.FLIP_PAIRS]
    assert pairs == [("moving left", "moving right"), ("turning left", "turning right")]


def brightness_centre(frames):
    """Column of the centroid of the differences from the median background."""
    difference = np.abs(frames.astype(float) - np.median(frames, (1, 2), keepdims=True)).sum(-1)
    return (difference.sum(1) * np.arange(frames.shape[2])).sum(1) / difference.sum((1, 2))


def test_frames_show_what_the_names_say():
    rightward, larger = [], []
    for i in range(20):
        x = brightness_centre(motion.draw((0, 0, i), motion.CLASS_NAMES.index("moving right"), 12, SIZE))
        rightward.append(x[-1] > x[0])
        growing = motion.draw((0, 0, i), motion.CLASS_NAMES.index("growing"), 12, SIZE).astype(float)
        changed = np.abs(growing - np.median(growing, (1, 2), keepdims=True)).sum((1, 2, 3))
        larger.append(changed[-1] > changed[0])
    assert np.mean(rightward) > 0.85
    assert np.mean(larger) > 0.85


@pytest.mark.parametrize("shape", motion.SHAPES)
def test_no_shape_looks_the_same_after_a_turn(shape):
    x, y = motion._grid(64, 64)
    whole = motion._coverage(shape, x, y, 32)
    assert 0.1 < whole.mean() < 0.8
    for angle in np.arange(30, 331, 30):
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turned = motion._coverage(shape, cos * x - sin * y, sin * x + cos * y, 32)
        assert np.abs(turned - whole).mean() > 0.15 * whole.mean()


def test_splits_share_no_clip(tmp_path):
    path = data_path("motion/tiny", tmp_path)
    clips = make_builder(path, make_config(path)).clips()
    assert {split: len(c) for split, c in clips.items()} == {"train": 64, "validation": 32}
    seeds = [clip.source.args[0] for split in clips.values() for clip in split]
    assert len(set(seeds)) == 96
    first = [encode_clip(clips[split][0], SIZE, 90, 1) for split in clips]
    assert first[0] != first[1]
    labels = np.bincount([clip.label for clip in clips["train"]])
    assert labels.min() >= 6
    assert labels.max() <= 7
