import numpy as np
import pytest

from rsa_jax.data import sampling


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
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8), expected)


@pytest.mark.parametrize("num_stored", [1, 3, 7, 8, 9, 45, 1000])
def test_eval_frames_of_one_and_two_clips_are_the_published_ones(num_stored):
    tick = num_stored / 8
    centres, starts = [int(tick / 2 + tick * i) for i in range(8)], [int(tick * i) for i in range(8)]
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8), centres)
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8, 0, 2), centres)
    np.testing.assert_array_equal(sampling.eval_frames(num_stored, 8, 1, 2), starts)


@pytest.mark.parametrize("num_clips", [1, 2, 3, 5, 10])
def test_clips_of_a_video_share_out_its_frames(num_clips):
    """Each has one frame from every segment; where there are enough for all, no two have the same."""
    for num_stored in (1, 5, 8, 80, 333):
        tick = num_stored / 8
        for clip in range(num_clips):
            frames = sampling.eval_frames(num_stored, 8, clip, num_clips)
            assert (frames >= np.floor(tick * np.arange(8))).all()
            assert (frames < tick * (np.arange(8) + 1)).all()
    frames = [sampling.eval_frames(8 * num_clips, 8, clip, num_clips) for clip in range(num_clips)]
    np.testing.assert_array_equal(np.sort(np.concatenate(frames)), np.arange(8 * num_clips))


@pytest.mark.parametrize("num_stored", [1, 3, 7, 8, 9, 45, 1000])
def test_train_frames_come_from_their_segments(num_stored):
    tick = num_stored / 8
    for epoch in range(50):
        frames = sampling.train_frames(num_stored, 8, sampling.frame_uniforms(0, epoch, 0, 8))
        assert (frames >= np.floor(tick * np.arange(8))).all()
        assert (frames < tick * (np.arange(8) + 1)).all()
        assert frames.max() < num_stored


def test_train_frames_stay_inside_at_the_largest_uniform():
    largest = np.full(8, np.nextafter(1, 0))
    for num_stored in range(1, 400):
        assert sampling.train_frames(num_stored, 8, largest).max() == num_stored - 1


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
def test_sliding_windows(count, length, hop, starts):
    parts = list(sampling.sliding_windows(iter(range(count)), length, hop))
    assert parts == [(start, list(range(start, min(start + length, count)))) for start in starts]
