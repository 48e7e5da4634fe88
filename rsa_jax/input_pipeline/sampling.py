"""Clip order and frame sampling: stateless functions of the seed, the epoch and the example."""

import collections
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

Item = TypeVar("Item")

# Values of `data.sampling`: segments that cover the whole video, or the segments of the published code.
SAMPLINGS = ("whole", "published")

# Separates the random streams of the two purposes when their other keys agree.
_ORDER, _FRAMES = 0, 1


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def epoch_order(seed: int, epoch: int, num_examples: int) -> Int[np.ndarray, " N"]:
    """Order of an epoch: a permutation of 0..num_examples-1."""
    return _generator(seed, _ORDER, epoch).permutation(num_examples)


def frame_uniforms(seed: int, epoch: int, index: int, num_frames: int) -> Float[np.ndarray, " T"]:
    """Random numbers in [0, 1) for the frames of one example in one epoch."""
    return _generator(seed, _FRAMES, epoch, index).random(num_frames)


def train_frames(
    num_stored: int, num_frames: int, uniforms: Float[np.ndarray, " T"], sampling: str
) -> Int[np.ndarray, " T"]:
    """One random frame from each of `num_frames` equal segments of a video of `num_stored` frames.

    "whole": segments of num_stored / num_frames frames, possibly fractional. Frame i is
    floor(tick * (i + uniforms[i])) with tick = num_stored / num_frames; short videos repeat frames in order.

    "published": segments of floor(num_stored / num_frames) frames. The last num_stored mod num_frames frames are never
    sampled; a video with fewer frames than segments repeats its first frame.

    Args:
        num_stored: frames of the video.
        num_frames: frames of a clip, T.
        uniforms: random numbers in [0, 1), one per segment.
        sampling: one of `SAMPLINGS`.
    """
    if sampling == "published":
        segment = num_stored // num_frames
        return segment * np.arange(num_frames) + np.floor(segment * uniforms).astype(np.int64)
    tick = num_stored / num_frames
    frames = np.floor(tick * (np.arange(num_frames) + uniforms)).astype(np.int64)
    return np.minimum(frames, num_stored - 1)  # a product may round up to num_stored


def eval_frames(
    num_stored: int, num_frames: int, sampling: str, clip: int = 0, num_clips: int = 1
) -> Int[np.ndarray, " T"]:
    """One frame from each of `num_frames` equal segments of a video of `num_stored` frames, at the same offset in each.

    Clip 0 takes the centres. Clip k of K is shifted by k/K of a segment, wrapping around at the end of the segment:
    the second of two clips takes the starts, as in the published code and TSM's.

    "published": a video with no more frames than segments repeats its first frame. "whole": it repeats frames in order.
    """
    if sampling == "published" and num_stored <= num_frames:
        return np.zeros(num_frames, np.int64)
    tick = num_stored / num_frames
    place = (num_clips + 2 * clip) % (2 * num_clips) / (2 * num_clips)  # (1/2 + clip / num_clips) mod 1, rounded once
    return (tick * place + tick * np.arange(num_frames)).astype(np.int64)


def view_frames(num_stored: int, num_frames: int, sampling: str, num_clips: int) -> Int[np.ndarray, " F"]:
    """Frames of the first `num_clips` clips of `eval_frames`, one clip after the other."""
    clips = (eval_frames(num_stored, num_frames, sampling, clip, num_clips) for clip in range(num_clips))
    return np.concatenate(list(clips))


def sliding_chunks(items: Iterable[Item], length: int, hop: int) -> Iterator[tuple[int, list[Item]]]:
    """Yields (start, chunk) for chunks of `length` items, one every `hop` items.

    The last chunk ends with the sequence, however close it is to the one before. A shorter sequence is a single
    chunk. Only one chunk is held in memory.
    """
    part: collections.deque[Item] = collections.deque(maxlen=length)
    end = last = 0
    for end, item in enumerate(items, 1):
        part.append(item)
        if end >= length and (end - length) % hop == 0:
            yield end - length, list(part)
            last = end
    if end > last:
        yield end - len(part), list(part)
