"""Damaged data sets, and the end of the process."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from rsa_jax.input_pipeline import pipeline, reading
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


def flip_bits(shard):
    content = bytearray(shard.read_bytes())
    content[content.index(b"validation_00012")] ^= 1
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


@pytest.mark.parametrize(
    "damage, reason",
    [(flip_bits, "hash mismatch"), (spoil_record, "Error parsing message"), (spoil_images, "Invalid JPEG")],
)
def test_a_damaged_clip_ends_reading_and_is_named(copied, damage, reason):
    data, _, shard = copied
    damage(shard)
    batches = pipeline.eval_batches(data, split="validation", batch_size=5)
    with pytest.raises(PreparationError, match=f"{shard}: record 12, clip 12 of .*'validation'.* {reason}") as error:
        assert [next(batches)["index"][0] for _ in range(3)] == [0, 5]
    assert "\n" not in str(error.value)
    assert next(batches, None) is None
    batches = pipeline.train_batches(changed(data, train_split="validation"), batch_size=32, seed=0, num_steps=1)
    with pytest.raises(PreparationError, match=f"{shard}: record 12"):
        next(batches)


def test_an_error_that_went_away_is_an_error():
    def failing():
        yield {"index": 0}
        raise tf.errors.UnknownError(None, None, "{{node X}} RuntimeError: timed out.\nTraceback ...")

    batches = reading._until_damage(failing(), lambda batch: None)
    next(batches)
    with pytest.raises(PreparationError, match="but a second attempt succeeded: RuntimeError: timed out\\.$"):
        next(batches)


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
