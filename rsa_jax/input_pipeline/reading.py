"""Reading of selected clips and frames in batches, in parallel. A damaged clip is named in the error."""

import atexit
import concurrent.futures
import dataclasses
import functools
import os
import re
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from jaxtyping import Int
from ml_collections import ConfigDict

from rsa_jax.input_pipeline.dataset_info import open_dataset
from rsa_jax.input_pipeline.stored_clips import open_clips
from rsa_jax.preparation.store import PreparationError, quiet

# frames uint8 [b, T, H, W, 3]; label, index (position in the split) and epoch int32 [b]; mask float32 [b], 0
# for padding. b is the per-process batch size. In evaluation, also id, bytes [b], and the frames of several clips
# one after the other, [b, clips * T, H, W, 3].
Batch = dict[str, np.ndarray]

# Errors of the disk, of array_record, of the parser and of the decoder; others are mistakes in the code.
_READING_ERRORS = (OSError, ValueError, RuntimeError, DecodeError, tf.errors.OpError)

# Clips that are read ahead, at once. Reads from a network wait most of the time, so many must be under way.
_AHEAD = 64
# Batches that are decoded at once. The images of one are decoded in parallel; at its end, cores would be idle.
_BATCHES = 2
# Fields of a batch beside the frames.
_FIELDS = {"id": tf.string, "label": tf.int32, "index": tf.int32, "epoch": tf.int32, "mask": tf.float32}


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
    examples = _Examples(open_dataset(data), selection)
    numbers = selection.numbers
    options = tf.data.Options()
    options.autotune.enabled = False  # all is set here; its thread would delay the end of the data by seconds
    dataset = tf.data.Dataset.range(numbers.start, numbers.stop - batch_size + 1, batch_size)
    load = functools.partial(examples.load, batch_size=batch_size)
    dataset = dataset.map(load, num_parallel_calls=_BATCHES, deterministic=True)
    dataset = dataset.prefetch(data.prefetch).with_options(options)
    reader = _until_damage(dataset, batch_size, examples)
    _open_readers().add(reader)
    return reader


class _ReadAhead:
    """Calls a function of consecutive numbers in threads, ahead of their use.

    Args:
        function: function to call.
        numbers: consecutive numbers, each of which will be asked for once.
    """

    def __init__(self, function: Callable[[int], Any], numbers: range):
        self._function, self._next, self._stop = function, numbers.start, numbers.stop
        self._threads = concurrent.futures.ThreadPoolExecutor(_AHEAD)
        self._results: dict[int, concurrent.futures.Future] = {}
        self._lock = threading.Lock()

    def __call__(self, number: int) -> Any:
        """The result for a number."""
        with self._lock:
            while self._next < self._stop and (self._next <= number or len(self._results) < _AHEAD):
                self._results[self._next] = self._threads.submit(self._function, self._next)
                self._next += 1
            result = self._results.pop(number)
        return result.result()

    def close(self) -> None:
        """Waits for the calls under way, and makes no more."""
        self._threads.shutdown(cancel_futures=True)


class _Examples:
    """Loads the examples of a selection."""

    def __init__(self, builder: tfds.core.DatasetBuilder, selection: Selection):
        self._builder, self._selection = builder, selection
        self.numbers = selection.numbers
        self._clips = open_clips(builder, selection.split)
        self._shape = builder.info.features["frames"].feature.shape
        self._ahead = _ReadAhead(self.read, selection.numbers)

    def read(self, number: int) -> tuple[list[bytes], tuple[bytes, int, int, int, bool]]:
        """Stored images of the chosen frames of an example, and the values of `_FIELDS`."""
        position = self._selection.locate(number)
        clip = self._clips[position.index]
        images = clip.read(self._selection.choose(position, clip.num_frames))
        return images, (clip.id, clip.label, position.index, position.epoch, position.counts)

    def _read_batch(self, first: np.int64, size: np.int32) -> list[np.ndarray]:
        """Images of all examples of a batch, and its values of `_FIELDS`."""
        examples = [self._ahead(number) for number in range(first, first + size)]
        images = np.array([image for images, _ in examples for image in images], object)
        columns = zip(*(values for _, values in examples), strict=True)
        types = (kind.as_numpy_dtype for kind in _FIELDS.values())
        return [images, *(np.array(values, kind) for values, kind in zip(columns, types, strict=True))]

    def load(self, first: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Batch with decoded frames, from the number of its first example."""
        types = (tf.string, *_FIELDS.values())
        images, *values = tf.numpy_function(self._read_batch, (first, batch_size), types, stateful=False)
        shape = (batch_size, self._selection.num_frames, *self._shape)
        pixels = tf.TensorSpec(self._shape, tf.uint8)
        images = tf.ensure_shape(images, [shape[0] * shape[1]])
        frames = tf.map_fn(self._decode, images, parallel_iterations=_cores(), fn_output_signature=pixels)
        batch = {"frames": tf.reshape(frames, shape)}
        for name, value in zip(_FIELDS, values, strict=True):
            if name != "id" or self._selection.with_id:
                batch[name] = tf.ensure_shape(value, [batch_size])
        return batch

    def _decode(self, image: tf.Tensor) -> tf.Tensor:
        # Accurate, as in other JPEG decoders. TensorFlow's default is a faster approximation.
        return tf.ensure_shape(tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE"), self._shape)

    def close(self) -> None:
        """Ends reading."""
        self._ahead.close()

    def damage(self, numbers: Iterable[int]) -> str | None:
        """Message about the first of the examples that cannot be loaded; None if all can be."""
        for number in numbers:
            try:
                for image in self.read(number)[0]:
                    self._decode(tf.constant(image))
            except _READING_ERRORS as error:
                index = self._selection.locate(number).index
                return _describe_damage(self._builder, self._selection.split, int(index), error)
        return None


def _cores() -> int:
    """Number of cores available to this process."""
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


def _until_damage(dataset: tf.data.Dataset, batch_size: int, examples: _Examples) -> Generator[Batch]:
    """Yields the batches. If one cannot be read, its examples are read again: TensorFlow names no clip."""
    done = 0
    try:
        for batch in dataset.as_numpy_iterator():
            yield batch
            done += 1
    except tf.errors.OpError as error:
        with quiet():
            message = examples.damage(examples.numbers[done * batch_size : (done + 1) * batch_size])
        raise PreparationError(
            message or f"A batch could not be read, but a second attempt succeeded: {_reason(error)}."
        ) from error
    finally:
        examples.close()


def _reason(error: Exception) -> str:
    """Error message without TensorFlow's operation names and traceback."""
    text = re.sub(r"^\{\{.*\}\} | \[Op:.*", "", str(error).partition("\n")[0])
    return re.sub("^Error in user-defined function.*::ParallelMapV2: ", "", text).rstrip(".")


def _describe_damage(builder: tfds.core.DatasetBuilder, split: str, index: int, error: Exception) -> str:
    shards, place = iter(builder.info.splits[split].file_instructions), index
    while place >= (shard := next(shards)).take:
        place -= shard.take
    return (
        f"{shard.filename}: record {place}, clip {index} of split {split!r}, cannot be read: {_reason(error)}. "
        "The data set is damaged: restore that file, or prepare the data set again with --overwrite."
    )
