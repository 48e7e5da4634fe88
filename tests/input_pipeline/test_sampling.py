import itertools
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest

from rsa_jax.input_pipeline import sampling


@pytest.mark.parametrize("num_examples", [1, 2, 7, 100])
def test_epoch_order_is_a_permutation(num_examples):
    np.testing.assert_array_equal(np.sort(sampling.epoch_order(3, 5, num_examples)), np.arange(num_examples))


def test_epoch_order_depends_on_seed_and_epoch_alone():
    order = sampling.epoch_order(0, 1, 50)
    np.testing.assert_array_equal(order, sampling.epoch_order(0, 1, 50))
    assert (order != sampling.epoch_order(0, 2, 50)).any()
    assert (order != sampling.epoch_order(1, 1, 50)).any()


def test_uniforms_differ_between_examples_and_epochs():
    uniforms = [sampling.frame_uniforms(0, epoch, index, 8) for epoch in range(3) for index in range(3)]
    assert len({tuple(u) for u in uniforms}) == 9
    np.testing.assert_array_equal(uniforms[0], sampling.frame_uniforms(0, 0, 0, 8))


@pytest.mark.parametrize("num_stored, expected", [(16, [1, 3, 5, 7, 9, 11, 13, 15]), (4, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_eval_frames_are_segment_centres(num_stored, expected):
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8, "whole"), expected)


@pytest.mark.parametrize("num_stored", [1, 3, 7, 8, 9, 45, 1000])
def test_eval_frames_of_one_and_two_clips_are_the_published_ones(num_stored):
    tick = num_stored / 8
    centres, starts = [int(tick / 2 + tick * i) for i in range(8)], [int(tick * i) for i in range(8)]
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8, "whole"), centres)
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8, "whole", 0, 2), centres)
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8, "whole", 1, 2), starts)


@pytest.mark.parametrize("num_clips", [1, 2, 3, 5, 10])
def test_clips_of_a_video_share_out_its_frames(num_clips):
    """Each clip has one frame from every segment; if there are enough frames, no two clips share one."""
    for num_stored in (1, 5, 8, 80, 333):
        tick = num_stored / 8
        for clip in range(num_clips):
            frames = sampling.eval_frames(num_stored, 8, "whole", clip, num_clips)
            assert (frames >= np.floor(tick * np.arange(8))).all()
            assert (frames < tick * (np.arange(8) + 1)).all()
    frames = [sampling.eval_frames(8 * num_clips, 8, "whole", clip, num_clips) for clip in range(num_clips)]
    np.testing.assert_array_equal(np.sort(np.concatenate(frames)), np.arange(8 * num_clips))


@pytest.mark.parametrize("num_stored", [1, 3, 7, 8, 9, 45, 1000])
def test_train_frames_come_from_their_segments(num_stored):
    tick = num_stored / 8
    for epoch in range(50):
        frames = sampling.train_frames(num_stored, 8, sampling.frame_uniforms(0, epoch, 0, 8), "whole")
        assert (frames >= np.floor(tick * np.arange(8))).all()
        assert (frames < tick * (np.arange(8) + 1)).all()
        assert frames.max() < num_stored


def test_train_frames_stay_inside_at_the_largest_uniform():
    largest = np.full(8, np.nextafter(1, 0))
    for num_stored in range(1, 400):
        assert sampling.train_frames(num_stored, 8, largest, "whole").max() == num_stored - 1


def published_ranges(num_stored, num_frames):
    """First and last frame that the published code can draw from each segment in training, written out."""
    length = num_stored // num_frames
    if length == 0:
        return [(0, 0)] * num_frames
    return [(i * length, i * length + length - 1) for i in range(num_frames)]


def published_evaluation(num_stored, num_frames, place=0.5):
    """Frames of the published evaluation: one place in each segment, or only the first frame of a short video."""
    if num_stored <= num_frames:
        return [0] * num_frames
    tick = num_stored / num_frames
    return [int(tick * place + tick * i) for i in range(num_frames)]


def whole_ranges(num_stored, num_frames):
    """First and last frame of equal segments of the whole video, rounded from exact fractions."""
    ends = [Fraction(num_stored * i, num_frames) for i in range(num_frames + 1)]
    return [(floor(start), ceil(end) - 1) for start, end in itertools.pairwise(ends)]


def test_the_published_rule_by_hand():
    """Worked out by hand: 45 frames are 8 segments of 5, and frames 40 to 44 are never seen."""
    assert published_ranges(45, 8) == [(0, 4), (5, 9), (10, 14), (15, 19), (20, 24), (25, 29), (30, 34), (35, 39)]
    assert published_ranges(8, 8) == [(i, i) for i in range(8)]
    assert published_ranges(7, 8) == [(0, 0)] * 8
    assert published_evaluation(45, 8) == [2, 8, 14, 19, 25, 30, 36, 42]
    assert published_evaluation(8, 8) == [0] * 8
    assert published_evaluation(9, 8) == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("num_frames", [8, 16])
@pytest.mark.parametrize(("sampling_rule", "ranges"), [("published", published_ranges), ("whole", whole_ranges)])
def test_training_frames_have_the_ranges_of_their_rule(num_frames, sampling_rule, ranges):
    """Both ends are reached, nothing outside is, and all published frames between are equally likely."""
    smallest, largest = np.zeros(num_frames), np.full(num_frames, 1 - 2**-40)
    grid = (np.arange(500) + 0.5) / 500
    for num_stored in range(1, 201):
        expected = ranges(num_stored, num_frames)
        ends = [sampling.train_frames(num_stored, num_frames, u, sampling_rule).tolist() for u in (smallest, largest)]
        assert list(zip(*ends, strict=True)) == expected, num_stored
        frames = [sampling.train_frames(num_stored, num_frames, np.full(num_frames, u), sampling_rule) for u in grid]
        for drawn, (first, last) in zip(np.transpose(frames), expected, strict=True):
            assert first <= drawn.min()
            assert drawn.max() <= last
            if sampling_rule == "published":
                counts = np.bincount(drawn - first, minlength=last - first + 1)
                assert np.ptp(counts) <= 1, num_stored


@pytest.mark.parametrize("num_frames", [8, 16])
def test_evaluation_frames_are_those_of_the_published_code(num_frames):
    """The second of two clips takes the starts of the segments."""
    for num_stored in range(1, 201):
        expected = published_evaluation(num_stored, num_frames) + published_evaluation(num_stored, num_frames, 0)
        assert sampling.view_frames(num_stored, num_frames, "published", 2).tolist() == expected
        whole = sampling.view_frames(num_stored, num_frames, "whole", 2).tolist()
        if num_stored > num_frames:
            assert whole == expected
        else:
            tick = num_stored / num_frames
            assert whole == [int(tick * place + tick * i) for place in (0.5, 0) for i in range(num_frames)]


@pytest.mark.parametrize(
    ("count", "length", "hop", "starts"),
    [
        (10, 4, 2, [0, 2, 4, 6]),
        (11, 4, 2, [0, 2, 4, 6, 7]),  # the last one ends with the sequence
        (10, 4, 6, [0, 6]),
        (13, 4, 6, [0, 6, 9]),
        (4, 4, 1, [0]),
        (3, 4, 2, [0]),
        (0, 4, 2, []),
    ],
)
def test_sliding_chunks(count, length, hop, starts):
    parts = list(sampling.sliding_chunks(iter(range(count)), length, hop))
    assert parts == [(start, list(range(start, min(start + length, count)))) for start in starts]
