import io
import itertools

import numpy as np
import pytest
from PIL import Image

from rsa_jax.input_pipeline import pipeline, sampling
from rsa_jax.input_pipeline.dataset_info import load_info
from rsa_jax.preparation.clip import encode_clip
from rsa_jax.preparation.datasets import make_builder, make_config
from rsa_jax.preparation.store import data_path
from tests.input_pipeline.tiny import changed


def tiny_builder(data):
    path = data_path(data.name, data.data_dir)
    return make_builder(path, make_config(path))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key, value in batch.items():
            np.testing.assert_array_equal(value, other[key], err_msg=key)


def train(data, **kwargs):
    return list(pipeline.train_batches(data, **{"batch_size": 24, "seed": 1, "num_steps": 5} | kwargs))


def test_batches(data):
    batch = train(data, num_steps=1)[0]
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "frames": ((24, 4, 36, 36, 3), "uint8"),
        "label": ((24,), "int32"),
        "index": ((24,), "int32"),
        "epoch": ((24,), "int32"),
        "mask": ((24,), "float32"),
    }


def test_training_frames_are_those_that_were_stored(data):
    batch = train(data, num_steps=1)[0]
    clips = tiny_builder(data).clips()["train"]
    for i in range(3):
        index = int(batch["index"][i])
        frames = encode_clip(clips[index], (36, 36), 90, 1)
        chosen = sampling.train_frames(len(frames), 4, sampling.frame_uniforms(1, 0, index, 4), "whole")
        expected = np.stack([np.asarray(Image.open(io.BytesIO(frames[j]))) for j in chosen])
        assert np.abs(batch["frames"][i].astype(int) - expected).max() <= 1
        assert batch["label"][i] == clips[index].label


@pytest.mark.parametrize("num_frames", [5, 12, 16])
def test_published_frames_are_those_that_were_stored(data, num_frames):
    """12 frames are stored; clips have 5 (two are never seen), all 12, or 16 (more than are stored)."""
    data = changed(data, sampling="published", num_frames=num_frames)

    def stored(split, index):
        frames = encode_clip(tiny_builder(data).clips()[split][index], (36, 36), 90, 1)
        return np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in frames]).astype(int)

    batch = train(data, num_steps=1)[0]
    index = int(batch["index"][0])
    frames = stored("train", index)
    uniforms = sampling.frame_uniforms(1, 0, index, num_frames)
    chosen = [i * (12 // num_frames) + int(u * (12 // num_frames)) for i, u in enumerate(uniforms)]
    assert len(frames) == 12
    assert np.abs(batch["frames"][0] - frames[chosen]).max() <= 1
    centres = [int(12 / num_frames * (i + 0.5)) if num_frames < 12 else 0 for i in range(num_frames)]
    expected = stored("validation", 1)[centres]
    evaluated = next(pipeline.eval_batches(data, split="validation", batch_size=2))["frames"][1]
    assert np.abs(evaluated - expected).max() <= 1
    np.testing.assert_array_equal(pipeline.read_clips(data, "validation", [1])["frames"][0], evaluated)


def test_order_is_that_of_the_epochs(data):
    batches = train(data, num_steps=4)  # two steps per epoch, 16 clips are dropped
    index = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(index[:48], sampling.epoch_order(1, 0, 64)[:48])
    np.testing.assert_array_equal(index[48:], sampling.epoch_order(1, 1, 64)[:48])
    assert [batch["epoch"].tolist() for batch in batches] == [[0] * 24] * 2 + [[1] * 24] * 2


def test_same_seed_same_batches(data):
    assert_same(train(data), train(data))
    assert (train(data)[0]["index"] != train(data, seed=2)[0]["index"]).any()


@pytest.mark.parametrize("start", [1, 2, 3, 5])
def test_resumed_batches_are_the_same(data, start):
    assert_same(train(data)[start:], train(data, start_step=start))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_split_a_batch(data, count):
    parts = [train(data, process_index=i, process_count=count) for i in range(count)]
    merged = [{k: np.concatenate([p[k] for p in step]) for k in step[0]} for step in zip(*parts, strict=True)]
    assert_same(merged, train(data))


@pytest.mark.parametrize("batch_size, count", [(32, 1), (12, 1), (12, 2), (50, 2), (1, 1)])
def test_evaluation_counts_every_clip_once(data, batch_size, count):
    parts = [
        list(
            pipeline.eval_batches(data, split="validation", batch_size=batch_size, process_index=i, process_count=count)
        )
        for i in range(count)
    ]
    assert {len(batches) for batches in parts} == {-(-32 // batch_size)}
    batches = list(itertools.chain(*parts))
    assert {len(batch["mask"]) for batch in batches} == {batch_size // count}
    counted = np.concatenate([batch["index"][batch["mask"] == 1] for batch in batches])
    assert sorted(counted) == list(range(32))


def test_evaluation_takes_segment_centres(data):
    batch = next(pipeline.eval_batches(data, split="validation", batch_size=2))
    clip = tiny_builder(data).clips()["validation"][1]
    frames = encode_clip(clip, (36, 36), 90, 1)
    expected = np.stack([np.asarray(Image.open(io.BytesIO(frames[j]))) for j in (1, 4, 7, 10)])
    assert np.abs(batch["frames"][1].astype(int) - expected).max() <= 1
    assert batch["id"].tolist() == [b"validation_00000", b"validation_00001"]


def test_clips_of_a_video_follow_each_other(data):
    one, two = (
        next(pipeline.eval_batches(data, split="validation", batch_size=2, num_clips=num_clips))["frames"]
        for num_clips in (1, 2)
    )
    assert two.shape == (2, 8, 36, 36, 3)
    np.testing.assert_array_equal(two[:, :4], one)
    clip = tiny_builder(data).clips()["validation"][1]
    frames = encode_clip(clip, (36, 36), 90, 1)
    expected = np.stack([np.asarray(Image.open(io.BytesIO(frames[j]))) for j in (0, 3, 6, 9)])
    assert np.abs(two[1, 4:].astype(int) - expected).max() <= 1


def test_clips_by_position(data):
    batch = next(pipeline.eval_batches(data, split="validation", batch_size=32))
    chosen = pipeline.read_clips(data, "validation", [30, 2, 30])
    for name in ("frames", "label", "index", "id"):
        np.testing.assert_array_equal(chosen[name], batch[name][[30, 2, 30]])
    with pytest.raises(ValueError, match=r"'validation' of 'motion/tiny' holds clips 0 to 31, not 32"):
        pipeline.read_clips(data, "validation", [0, 32])


def test_steps_per_epoch(data):
    info = load_info(data)
    assert pipeline.steps_per_epoch(info, "train", 24) == 2
    with pytest.raises(ValueError, match=r"'train' of 'motion/tiny' holds 64 clips, fewer than .* 65"):
        pipeline.steps_per_epoch(info, "train", 65)
    with pytest.raises(ValueError, match="multiple of the number of processes"):
        train(data, process_count=5)


def test_unknown_split(data):
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation"):
        pipeline.eval_batches(data, split="test", batch_size=4)
