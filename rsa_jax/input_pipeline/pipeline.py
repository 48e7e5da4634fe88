"""Input pipeline: batches of clips from a prepared data set, in seeded order, with sampled frames."""

import atexit
import dataclasses
import functools
import os
import re
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from rsa_jax.input_pipeline import sampling
from rsa_jax.preparation.builder import PreparationError, data_path, open_prepared, prepare, quiet
from rsa_jax.preparation.datasets import BUILDERS, make_builder, make_config

# frames uint8 [b, T, H, W, 3]; label, index (position in the split) and epoch int32 [b]; mask float32 [b], 0
# for padding. b is the per-process batch size. In evaluation, also id, bytes [b], and the frames of several clips
# one after the other, [b, clips * T, H, W, 3].
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Description of a prepared data set.

    Attributes:
      name: as in the configuration.
      class_names: in the order of the class ids.
      flip_pairs: classes that a flip changes, as `ClipBuilder.flip_pairs`.
      num_examples: clips per split.
      frame_size: (height, width) of the stored frames in pixels.
      provenance: source, counts, quality, versions, hash of the label map, clips left out.
    """

    name: str
    class_names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, ...], ...]
    num_examples: dict[str, int]
    frame_size: tuple[int, int]
    provenance: dict[str, Any]


def _open(data: ConfigDict) -> tfds.core.DatasetBuilder:
    if not data.name:
        raise PreparationError(f"config.data.name is not set; expected one of {', '.join(BUILDERS)}.")
    path = data_path(data.name, data.data_dir)
    builder = data.name.partition("/")[0]
    if not path.is_dir() and builder == "motion":
        config = make_config(path)
        print(f"Generating data set {data.name!r} in {path} (first use only) ...", flush=True)
        prepare(lambda: make_builder(path, config), path)
    elif not path.is_dir():
        known = "" if builder in BUILDERS else f" (it is none of {', '.join(BUILDERS)})"
        raise PreparationError(
            f"Data set {data.name!r}{known} is not in {data.data_dir}. Prepare it with\n"
            f"  python -m rsa_jax.tools.prepare {data.name} --source DIR --data_dir {data.data_dir}"
        )
    return open_prepared(path)


def _info(data: ConfigDict, builder: tfds.core.DatasetBuilder) -> DatasetInfo:
    metadata = builder.info.metadata
    provenance = metadata["provenance"]
    # Data sets prepared by version 0.1 have the flip pairs under another name.
    flip_pairs = metadata["flip_pairs"] if "flip_pairs" in metadata else metadata["directional"]
    return DatasetInfo(
        name=data.name,
        class_names=tuple(builder.info.features["label"].names),
        flip_pairs=tuple(tuple(group) for group in flip_pairs),
        num_examples={name: split.num_examples for name, split in builder.info.splits.items()},
        frame_size=tuple(provenance["frame_size"]),
        provenance=provenance,
    )


def _num_examples(info: DatasetInfo, split: str) -> int:
    if split not in info.num_examples:
        raise ValueError(
            f"Data set {info.name!r} has no split {split!r}; it has {', '.join(sorted(info.num_examples))}."
        )
    return info.num_examples[split]


def load_info(data: ConfigDict) -> DatasetInfo:
    """Description of the data set of `config.data`. Draws `motion` on first use.

    Raises:
      PreparationError: If it was not prepared (the message gives the command) or is incomplete.
      ValueError: If it lacks a split that the configuration names.
    """
    info = _info(data, _open(data))
    for split in (data.train_split, data.eval_split):
        _num_examples(info, split)
    return info


def steps_per_epoch(info: DatasetInfo, split: str, batch_size: int) -> int:
    """Number of full batches in the split. Each epoch drops different clips, as it has its own order.

    Raises:
      ValueError: If the split holds fewer clips than one batch.
    """
    num_examples = _num_examples(info, split)
    if num_examples < batch_size:
        raise ValueError(
            f"Split {split!r} of {info.name!r} holds {num_examples} clips, fewer than config.batch_size = {batch_size}."
        )
    return num_examples // batch_size


def _share(batch_size: int, process_index: int, process_count: int) -> range:
    """Range of batch entries that belong to one process."""
    if batch_size % process_count:
        raise ValueError(f"Batch size {batch_size} is not a multiple of the number of processes, {process_count}.")
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)


def _cores() -> int:
    """Number of cores available to this process. TensorFlow's own choice starts with one and adapts slowly."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@quiet()  # TensorFlow warns about TFDS's calls while it traces the graph
def _batches(
    data: ConfigDict,
    split: str,
    batch_size: int,
    examples: range,
    describe: Callable[[int], tuple[int, int, bool]],
    choose: Callable[[int, int, int], np.ndarray],
    *,
    num_frames: int,
    with_id: bool,
) -> Iterator[Batch]:
    """Batches of the given examples, in their order.

    Args:
      data: config.data.
      split: split to read.
      batch_size: per-process batch size.
      examples: consecutive numbers of this process' examples.
      describe: maps an example number to (index in the split, epoch, whether it counts).
      choose: maps (number of stored frames, index, epoch) to the frames to decode.
      num_frames: number of frames that `choose` returns.
      with_id: whether batches have `id`.
    """
    builder = _open(data)
    source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    height, width, _ = builder.info.features["frames"].feature.shape

    def fetch(number: np.ndarray) -> tuple[np.ndarray, bytes, np.int32, np.int32, np.int32, np.float32]:
        index, epoch, counts = describe(int(number))
        # The protocol-buffer parser: TFDS's would copy all stored images twice.
        fields = tf.train.Example.FromString(source[index]).features.feature
        stored = fields["frames"].bytes_list.value
        pictures = np.array([stored[i] for i in choose(len(stored), index, epoch)], object)
        label = np.int32(fields["label"].int64_list.value[0])
        return pictures, fields["id"].bytes_list.value[0], label, np.int32(index), np.int32(epoch), np.float32(counts)

    def load(number: tf.Tensor) -> dict[str, tf.Tensor]:
        types = (tf.string, tf.string, tf.int32, tf.int32, tf.int32, tf.float32)
        pictures, *rest = tf.numpy_function(fetch, (number,), types, stateful=False)
        # Accurate, as in other JPEG decoders. TensorFlow's default is a faster approximation.
        frames = [
            tf.io.decode_jpeg(picture, channels=3, dct_method="INTEGER_ACCURATE")
            for picture in tf.unstack(tf.ensure_shape(pictures, [num_frames]))
        ]
        batch = {"frames": tf.ensure_shape(tf.stack(frames), [num_frames, height, width, 3])}
        names = ("id", "label", "index", "epoch", "mask")
        batch |= {name: tf.ensure_shape(value, []) for name, value in zip(names, rest, strict=True)}
        return batch if with_id else {name: batch[name] for name in batch if name != "id"}

    def damage(batch: int) -> str | None:
        for number in examples[batch * batch_size : (batch + 1) * batch_size]:
            try:
                load(tf.constant(number, tf.int64))
            except Exception as error:
                return _describe_damage(builder, split, int(describe(number)[0]), error)
        return None

    dataset = tf.data.Dataset.range(examples.start, examples.stop)
    dataset = dataset.map(load, num_parallel_calls=_cores(), deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(data.prefetch)
    reader = _until_damage(dataset.as_numpy_iterator(), damage)
    _readers.add(reader)
    return reader


# TensorFlow's prefetch threads call Python: at the end of the process they would wait for it forever.
_readers: weakref.WeakSet[Generator[Batch]] = weakref.WeakSet()


@atexit.register
def _close_readers() -> None:
    for reader in list(_readers):
        reader.close()


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


def clip_ids(data: ConfigDict, split: str, index: Iterable[int]) -> list[str]:
    """Ids of the clips at the given positions of a split. For a data set of videos: paths in its source."""
    source = _open(data).as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    examples = (tf.train.Example.FromString(source[i]) for i in index)
    return [example.features.feature["id"].bytes_list.value[0].decode() for example in examples]


def read_clips(data: ConfigDict, split: str, index: Sequence[int]) -> Batch:
    """Batch of the videos at the given positions of a split, as from `eval_batches` with one clip each.

    Args:
      data: config.data.
      split: split to read.
      index: at least one position.

    Raises:
      ValueError: If a position is outside the split.
    """
    num_examples = _num_examples(load_info(data), split)
    for position in index:
        if not 0 <= position < num_examples:
            raise ValueError(f"Split {split!r} of {data.name!r} holds clips 0 to {num_examples - 1}, not {position}.")

    def describe(number: int) -> tuple[int, int, bool]:
        return index[number], 0, True

    def choose(num_stored: int, index: int, epoch: int) -> np.ndarray:
        return sampling.view_frames(int(num_stored), data.num_frames, data.sampling, 1)

    size, count = len(index), data.num_frames
    return next(_batches(data, split, size, range(size), describe, choose, num_frames=count, with_id=True))


def train_batches(
    data: ConfigDict,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Training batches of steps start_step..num_steps-1. Each depends only on the seed and the step.

    Args:
      data: config.data.
      batch_size: global batch size, over all processes.
      seed: seed of clip order and frame sampling.
      start_step: first step, counted over all epochs; earlier batches are not read.
      num_steps: steps of the whole run, including those before `start_step`.
      process_index: index of this process.
      process_count: number of processes that split each batch.
    """
    info = load_info(data)
    per_epoch = steps_per_epoch(info, data.train_split, batch_size) * batch_size
    num_examples = info.num_examples[data.train_split]
    share = _share(batch_size, process_index, process_count)
    order = functools.lru_cache(maxsize=2)(lambda epoch: sampling.epoch_order(seed, epoch, num_examples))

    def describe(number: int) -> tuple[int, int, bool]:
        step, place = divmod(number, len(share))
        epoch, position = divmod(step * batch_size + share[place], per_epoch)
        return order(epoch)[position], epoch, True

    def choose(num_stored: int, index: int, epoch: int) -> np.ndarray:
        uniforms = sampling.frame_uniforms(seed, int(epoch), int(index), data.num_frames)
        return sampling.train_frames(int(num_stored), data.num_frames, uniforms, data.sampling)

    examples = range(start_step * len(share), num_steps * len(share))
    split, count = data.train_split, data.num_frames
    return _batches(data, split, len(share), examples, describe, choose, num_frames=count, with_id=False)


def eval_batches(
    data: ConfigDict,
    *,
    split: str,
    batch_size: int,
    num_clips: int = 1,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Batches with every video of a split exactly once, in order. The last one is padded with videos of mask 0.

    Every process gets the same number of batches. The arguments are those of `train_batches`, and `num_clips`, the
    number of clips per video.
    """
    num_examples = _num_examples(load_info(data), split)
    share = _share(batch_size, process_index, process_count)

    def describe(number: int) -> tuple[int, int, bool]:
        step, place = divmod(number, len(share))
        position = step * batch_size + share[place]
        return min(position, num_examples - 1), 0, position < num_examples

    def choose(num_stored: int, index: int, epoch: int) -> np.ndarray:
        return sampling.view_frames(int(num_stored), data.num_frames, data.sampling, num_clips)

    examples = range(-(-num_examples // batch_size) * len(share))
    count = num_clips * data.num_frames
    return _batches(data, split, len(share), examples, describe, choose, num_frames=count, with_id=True)
