"""Reading of selected clips and frames in batches, in parallel. A damaged clip is named in the error."""

import atexit
import dataclasses
import functools
import os
import re
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from jaxtyping import Int
from ml_collections import ConfigDict

from rsa_jax.input_pipeline.dataset_info import open_dataset
from rsa_jax.preparation.store import PreparationError, quiet

# frames uint8 [b, T, H, W, 3]; label, index (position in the split) and epoch int32 [b]; mask float32 [b], 0
# for padding. b is the per-process batch size. In evaluation, also id, bytes [b], and the frames of several clips
# one after the other, [b, clips * T, H, W, 3].
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Position:
    """Position of an example in the data.

    Attributes:
        index: index in the split.
        epoch: epoch in which it is read.
        counts: False if it only pads the batch.
    """

    index: int
    epoch: int
    counts: bool


@dataclasses.dataclass(frozen=True)
class Selection:
    """Choice of the examples of one process and of their frames.

    Attributes:
        split: split to read.
        numbers: consecutive numbers of the examples.
        locate: maps the number of an example to its position.
        choose: maps a position and the number of stored frames to the frames to decode.
        num_frames: number of frames that `choose` returns.
        with_id: whether batches have `id`.
    """

    split: str
    numbers: range
    locate: Callable[[int], Position]
    choose: Callable[[Position, int], Int[np.ndarray, " T"]]
    num_frames: int
    with_id: bool


@quiet()  # TensorFlow warns about TFDS's calls while it traces the graph
def read_batches(data: ConfigDict, selection: Selection, batch_size: int) -> Generator[Batch]:
    """Batches of the selected examples, in their order; a last incomplete batch is dropped.

    Args:
        data: `data` section of the configuration.
        selection: examples and frames to read.
        batch_size: per-process batch size.

    Raises:
        PreparationError: If an example cannot be read; the message names its file, record and index.
    """
    builder = open_dataset(data)
    examples = _Examples(builder, selection)
    numbers = selection.numbers
    dataset = tf.data.Dataset.range(numbers.start, numbers.stop)
    dataset = dataset.map(examples.load, num_parallel_calls=_cores(), deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(data.prefetch)

    def damage(batch: int) -> str | None:
        return examples.damage(numbers[batch * batch_size : (batch + 1) * batch_size])

    reader = _until_damage(dataset.as_numpy_iterator(), damage)
    _open_readers().add(reader)
    return reader


def records(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[bytes]:
    """Stored examples of a split, read when indexed."""
    return builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)


def features(record: bytes) -> dict[str, tf.train.Feature]:
    """Fields of a stored example."""
    # The protocol-buffer parser: TFDS's would copy all stored images twice.
    return tf.train.Example.FromString(record).features.feature


class _Examples:
    """Loads single examples of a selection."""

    def __init__(self, builder: tfds.core.DatasetBuilder, selection: Selection):
        self._builder, self._selection = builder, selection
        self._source = records(builder, selection.split)
        self._frame_shape = builder.info.features["frames"].feature.shape

    def _fetch(self, number: np.ndarray) -> tuple[np.ndarray, bytes, np.int32, np.int32, np.int32, np.float32]:
        """Stored images of the chosen frames; id, label, index, epoch and mask."""
        position = self._selection.locate(int(number))
        fields = features(self._source[position.index])
        stored = fields["frames"].bytes_list.value
        images = np.array([stored[i] for i in self._selection.choose(position, len(stored))], object)
        label = np.int32(fields["label"].int64_list.value[0])
        index, epoch, mask = np.int32(position.index), np.int32(position.epoch), np.float32(position.counts)
        return images, fields["id"].bytes_list.value[0], label, index, epoch, mask

    def load(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
        """Example with decoded frames, from its number: a batch without the batch axis."""
        types = (tf.string, tf.string, tf.int32, tf.int32, tf.int32, tf.float32)
        images, *rest = tf.numpy_function(self._fetch, (number,), types, stateful=False)
        # Accurate, as in other JPEG decoders. TensorFlow's default is a faster approximation.
        frames = [
            tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
            for image in tf.unstack(tf.ensure_shape(images, [self._selection.num_frames]))
        ]
        example = {"frames": tf.ensure_shape(tf.stack(frames), [len(frames), *self._frame_shape])}
        for name, value in zip(("id", "label", "index", "epoch", "mask"), rest, strict=True):
            if name != "id" or self._selection.with_id:
                example[name] = tf.ensure_shape(value, [])
        return example

    def damage(self, numbers: Iterable[int]) -> str | None:
        """Message about the first of the examples that cannot be loaded; None if all can be."""
        for number in numbers:
            try:
                self.load(tf.constant(number, tf.int64))
            except Exception as error:
                index = self._selection.locate(number).index
                return _describe_damage(self._builder, self._selection.split, int(index), error)
        return None


def _cores() -> int:
    """Number of cores available to this process. TensorFlow's own choice starts with one and adapts slowly."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _open_readers() -> weakref.WeakSet[Generator[Batch]]:
    """All open readers, which the end of the process closes.

    TensorFlow's prefetch threads call Python: at the end of the process they would wait for it forever.
    """
    readers: weakref.WeakSet[Generator[Batch]] = weakref.WeakSet()

    @atexit.register
    def close() -> None:
        for reader in list(readers):
            reader.close()

    return readers


def _until_damage(batches: Iterator[Batch], damage: Callable[[int], str | None]) -> Generator[Batch]:
    """Yields the batches. If one cannot be read, `damage(number)` gives the reason: TensorFlow names no clip."""
    done = 0
    try:
        for batch in batches:
            yield batch
            done += 1
    except Exception as error:
        if not isinstance(error, tf.errors.OpError):
            raise
        with quiet():
            message = damage(done)
        raise PreparationError(
            message or f"A batch could not be read, but a second attempt succeeded: {_reason(error)}."
        ) from error


def _reason(error: Exception) -> str:
    """Error message without TensorFlow's operation names and traceback."""
    return re.sub(r"^\{\{.*\}\} | \[Op:.*", "", str(error).partition("\n")[0]).rstrip(".")


def _describe_damage(builder: tfds.core.DatasetBuilder, split: str, index: int, error: Exception) -> str:
    shards, place = iter(builder.info.splits[split].file_instructions), index
    while place >= (shard := next(shards)).take:
        place -= shard.take
    return (
        f"{shard.filename}: record {place}, clip {index} of split {split!r}, cannot be read: {_reason(error)}. "
        "The data set is damaged: restore that file, or prepare the data set again with --overwrite."
    )
