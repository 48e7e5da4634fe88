"""Damaged data sets, and the end of the process."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from rsa_jax.input_pipeline import pipeline, reading
from rsa_jax.preparation import frame_index
from rsa_jax.preparation.store import PreparationError
from tests.input_pipeline.tiny import changed


def rewrite(shard, change):
    """Changes the content of clip 12 in an otherwise valid file."""
    reader = ArrayRecordReader(str(shard))
    records = reader.read_all()
    reader.close()
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for i, record in enumerate(records):
        writer.write(change(record) if i == 12 else record)
    writer.close()
    metadata = shard.parent / "metadata.json"
    content = json.loads(metadata.read_text())
    content["files"][shard.name] = shard.stat().st_size
    metadata.write_text(json.dumps(content))


def flip_bit_of_id(shard):
    content = bytearray(shard.read_bytes())
    content[content.index(b"validation_00012")] ^= 1
    shard.write_bytes(content)


def flip_bit_of_image(shard):
    """In the middle of each image of clip 12, where a JPEG decoder notices nothing."""
    content = bytearray(shard.read_bytes())
    builder = tfds.builder_from_directory(shard.parent)
    source = builder.as_data_source("validation", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    for image in tf.train.Example.FromString(source[12]).features.feature["frames"].bytes_list.value:
        place = content.find(image[-40:])  # not found where a block header interrupts it
        content[place + 20] ^= 1
    shard.write_bytes(content)


def spoil_record(shard):
    rewrite(shard, lambda record: b"nonsense")


def spoil_images(shard):
    def shorten(record):
        example = tf.train.Example.FromString(record)
        images = example.features.feature["frames"].bytes_list
        images.value[:] = [image[:300] for image in images.value]
        return example.SerializeToString()

    rewrite(shard, shorten)


def assert_is_named(data, shard, reason):
    batches = pipeline.eval_batches(data, split="validation", batch_size=5)
    with pytest.raises(PreparationError, match=f"{shard}: record 12, clip 12 of .*'validation'.* {reason}") as error:
        assert [next(batches)["index"][0] for _ in range(3)] == [0, 5]
    assert "\n" not in str(error.value)
    assert next(batches, None) is None
    batches = pipeline.train_batches(changed(data, train_split="validation"), batch_size=32, seed=0, num_steps=1)
    with pytest.raises(PreparationError, match=f"{shard}: record 12"):
        next(batches)


def test_a_damaged_clip_ends_reading_and_is_named(copied):
    data, _, shard = copied
    flip_bit_of_image(shard)
    assert_is_named(data, shard, "hash mismatch")


@pytest.mark.parametrize(
    "damage, reason",
    [
        (flip_bit_of_id, "hash mismatch"),
        (flip_bit_of_image, "hash mismatch"),
        (spoil_record, "Error parsing message"),
        (spoil_images, "Invalid JPEG"),
    ],
)
def test_a_damaged_clip_is_named_without_an_index(without_index, damage, reason):
    data, _, shard = without_index
    damage(shard)
    assert_is_named(data, shard, reason)


@pytest.mark.parametrize("fraction", [0, 0.5])
def test_a_damaged_index_is_named(copied, fraction):
    data, path, _ = copied
    index = path / "validation.frames.npz"
    content = bytearray(index.read_bytes())
    content[int(fraction * len(content))] ^= 1
    index.write_bytes(content)
    with pytest.raises(PreparationError, match=f"{index} cannot be read: .*--overwrite"):
        pipeline.eval_batches(data, split="validation", batch_size=8)


def test_only_the_chosen_frames_are_read(copied, monkeypatch):
    """All but the frames that evaluation chooses may be damaged. Far frames are read one by one, near ones at once."""
    data, _, shard = copied
    whole = list(pipeline.eval_batches(data, split="validation", batch_size=8))
    reads, pread = [], os.pread

    def counted(file, size, position):
        reads.append(size)
        return pread(file, size, position)

    monkeypatch.setattr(os, "pread", counted)
    for near, count in ((frame_index._NEAR, 32), (0, 32 * 4)):
        monkeypatch.setattr(frame_index, "_NEAR", near)
        reads.clear()
        for batch, other in zip(pipeline.eval_batches(data, split="validation", batch_size=8), whole, strict=True):
            np.testing.assert_array_equal(batch["frames"], other["frames"])
        assert len(reads) == count
    assert sum(reads) < 0.4 * shard.stat().st_size


def test_without_an_index_the_same_batches(data, without_index):
    """Data sets of version 0.1 have none."""
    for split in ("train", "validation"):
        batches = (pipeline.eval_batches(it, split=split, batch_size=8, num_clips=2) for it in (data, without_index[0]))
        for batch, other in zip(*batches, strict=True):
            assert batch.keys() == other.keys()
            for name, value in batch.items():
                np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_nothing_is_read_before_the_first_batch(data, monkeypatch):
    reads = []
    monkeypatch.setattr(reading._Examples, "read", lambda self, number: reads.append(number))
    reader = pipeline.train_batches(data, batch_size=8, seed=0, num_steps=8)
    assert not reads
    reader.close()


def test_an_interrupted_reader_ends_at_once(data, monkeypatch):
    """Closing one waits for the clips that are being read, and reads no more."""
    reads, read = [], reading._Examples.read
    monkeypatch.setattr(reading, "_AHEAD", 2)
    monkeypatch.setattr(reading._Examples, "read", lambda self, number: reads.append(number) or read(self, number))
    reader = pipeline.train_batches(data, batch_size=8, seed=0, num_steps=1000)
    next(reader)
    reader.close()
    assert len(reads) <= 8 * 8
    count = len(reads)
    time.sleep(0.2)
    assert len(reads) == count


def test_an_error_that_went_away_is_an_error(data, monkeypatch):
    read, failed = reading._Examples.read, []

    def once(self, number):
        if number == 12 and not failed:
            failed.append(number)
            raise OSError("timed out")
        return read(self, number)

    monkeypatch.setattr(reading._Examples, "read", once)
    batches = pipeline.eval_batches(data, split="validation", batch_size=8)
    next(batches)
    with pytest.raises(PreparationError, match="but a second attempt succeeded: OSError: timed out\\.$"):
        next(batches)


def test_a_mistake_in_the_code_is_no_damage(data, monkeypatch):
    monkeypatch.setattr(reading._Examples, "read", lambda self, number: {}[number])
    with pytest.raises(KeyError):
        next(pipeline.eval_batches(data, split="validation", batch_size=8))


def test_records_are_counted_through_the_files():
    """A split of several files, of which only the names and record counts matter here."""
    files = [SimpleNamespace(filename=f"shard{i}", take=take) for i, take in enumerate((3, 1, 4))]
    builder = SimpleNamespace(info=SimpleNamespace(splits={"train": SimpleNamespace(file_instructions=files)}))
    places = [reading._describe_damage(builder, "train", i, ValueError("bad")).split(",")[0] for i in range(8)]
    expected = [("shard0", 0), ("shard0", 1), ("shard0", 2), ("shard1", 0), *(("shard2", i) for i in range(4))]
    assert places == [f"{name}: record {i}" for name, i in expected]


# Makes two readers, and closes them with what is registered for the end of the process.
READERS = """
import atexit, sys

registered, register = [], atexit.register

def noted(function, *args, **kwargs):
    if (getattr(function, "__module__", None) or "").startswith("rsa_jax"):
        registered.append(function)
    return register(function, *args, **kwargs)

atexit.register = noted
from rsa_jax.input_pipeline import pipeline
from rsa_jax.settings import data_config

data = data_config()
data.name, data.data_dir, data.num_frames = "motion/tiny", sys.argv[1], 4
readers = [pipeline.train_batches(data, batch_size=4, seed=seed, num_steps=100) for seed in (0, 1)]
next(readers[0])
(close,) = registered
close()
assert [next(reader, None) for reader in readers] == [None, None]
"""


def test_open_readers_are_closed_at_the_end_of_the_process(data):
    """Otherwise some processes never end, or abort."""
    done = subprocess.run([sys.executable, "-c", READERS, data.data_dir], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_reading_ahead_gives_every_result_once_in_any_order(monkeypatch):
    monkeypatch.setattr(reading, "_AHEAD", 3)
    called = []
    ahead = reading._ReadAhead(lambda number: called.append(number) or number**2, range(10, 40))
    order = [12, 10, 11, 20, *range(13, 20), *range(21, 40)]
    assert [ahead(number) for number in order[:4]] == [144, 100, 121, 400]
    ahead.close()
    assert sorted(called) == list(range(10, 21))  # three ahead would be reached again at 18
    ahead = reading._ReadAhead(lambda number: number**2, range(10, 40))
    assert [ahead(number) for number in order] == [number**2 for number in order]
    ahead.close()
