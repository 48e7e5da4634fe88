"""Input pipeline: batches of clips from a prepared data set, in seeded order, with sampled frames."""

import functools
from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from rsa_jax.input_pipeline import sampling
from rsa_jax.input_pipeline.dataset_info import DatasetInfo, load_info, open_dataset
from rsa_jax.input_pipeline.reading import Batch, Position, Selection, read_batches
from rsa_jax.input_pipeline.stored_clips import open_clips


def steps_per_epoch(info: DatasetInfo, split: str, batch_size: int) -> int:
    """Number of full batches in the split. Each epoch drops different clips, as it has its own order.

    Raises:
        ValueError: If the split holds fewer clips than one batch.
    """
    num_examples = info.split_size(split)
    if num_examples < batch_size:
        raise ValueError(
            f"Split {split!r} of {info.name!r} holds {num_examples} clips, fewer than config.batch_size = {batch_size}."
        )
    return num_examples // batch_size


def _process_entries(batch_size: int, process_index: int, process_count: int) -> range:
    """Range of batch entries that belong to one process."""
    if batch_size % process_count:
        raise ValueError(f"Batch size {batch_size} is not a multiple of the number of processes, {process_count}.")
    count = batch_size // process_count
    return range(process_index * count, (process_index + 1) * count)


def clip_ids(data: ConfigDict, split: str, index: Iterable[int]) -> list[str]:
    """Ids of the clips at the given positions of a split. For a data set of videos: paths in its source."""
    clips = open_clips(open_dataset(data), split)
    return [clips[i].id.decode() for i in index]


def read_clips(data: ConfigDict, split: str, index: Sequence[int]) -> Batch:
    """Batch of the videos at the given positions of a split, as from `eval_batches` with one clip each.

    Args:
        data: `data` section of the configuration.
        split: split to read.
        index: at least one position.

    Raises:
        ValueError: If a position is outside the split, or there is no such split.
    """
    num_examples = load_info(data).split_size(split)
    for position in index:
        if not 0 <= position < num_examples:
            raise ValueError(f"Split {split!r} of {data.name!r} holds clips 0 to {num_examples - 1}, not {position}.")

    def locate(number: int) -> Position:
        return Position(index[number], epoch=0, counts=True)

    return next(_eval_batches(data, split, range(len(index)), locate, num_clips=1, batch_size=len(index)))


def train_batches(
    data: ConfigDict,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch]:
    """Training batches of steps start_step..num_steps-1. Each depends only on the seed and the step.

    Args:
        data: `data` section of the configuration.
        batch_size: global batch size, over all processes.
        seed: seed of clip order and frame sampling.
        start_step: first step, counted over all epochs; earlier batches are not read.
        num_steps: steps of the whole run, including those before `start_step`.
        process_index: index of this process.
        process_count: number of processes that split each batch.

    Raises:
        ValueError: If the split holds fewer clips than one batch, or the processes cannot split a batch evenly.
    """
    info = load_info(data)
    per_epoch = steps_per_epoch(info, data.train_split, batch_size) * batch_size
    num_examples = info.split_size(data.train_split)
    entries = _process_entries(batch_size, process_index, process_count)
    order = functools.lru_cache(maxsize=2)(lambda epoch: sampling.epoch_order(seed, epoch, num_examples))

    def locate(number: int) -> Position:
        step, place = divmod(number, len(entries))
        epoch, position = divmod(step * batch_size + entries[place], per_epoch)
        return Position(int(order(epoch)[position]), epoch, counts=True)

    def choose(position: Position, num_stored: int) -> Int[np.ndarray, " T"]:
        uniforms = sampling.frame_uniforms(seed, position.epoch, position.index, data.num_frames)
        return sampling.train_frames(num_stored, data.num_frames, uniforms, data.sampling)

    numbers = range(start_step * len(entries), num_steps * len(entries))
    selection = Selection(data.train_split, numbers, locate, choose, data.num_frames, with_id=False)
    return read_batches(data, selection, len(entries))


def eval_batches(
    data: ConfigDict,
    *,
    split: str,
    batch_size: int,
    num_clips: int = 1,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch]:
    """Batches with every video of a split exactly once, in order. The last one is padded with videos of mask 0.

    Every process gets the same number of batches.

    Args:
        data: `data` section of the configuration.
        split: split to read.
        batch_size: global batch size, over all processes.
        num_clips: number of clips per video.
        process_index: index of this process.
        process_count: number of processes that split each batch.

    Raises:
        ValueError: If there is no such split, or the processes cannot split a batch evenly.
    """
    num_examples = load_info(data).split_size(split)
    entries = _process_entries(batch_size, process_index, process_count)

    def locate(number: int) -> Position:
        step, place = divmod(number, len(entries))
        index = step * batch_size + entries[place]
        return Position(min(index, num_examples - 1), epoch=0, counts=index < num_examples)

    numbers = range(-(-num_examples // batch_size) * len(entries))
    return _eval_batches(data, split, numbers, locate, num_clips=num_clips, batch_size=len(entries))


def _eval_batches(
    data: ConfigDict,
    split: str,
    numbers: range,
    locate: Callable[[int], Position],
    *,
    num_clips: int,
    batch_size: int,
) -> Generator[Batch]:
    """Batches with the frames of the first `num_clips` clips of each video; see `Selection` for the arguments."""

    def choose(position: Position, num_stored: int) -> Int[np.ndarray, " F"]:
        return sampling.view_frames(num_stored, data.num_frames, data.sampling, num_clips)

    selection = Selection(split, numbers, locate, choose, num_clips * data.num_frames, with_id=True)
    return read_batches(data, selection, batch_size)
