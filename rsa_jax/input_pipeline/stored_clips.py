"""Access to the stored clips of a split: chosen frames by the index, whole records without one."""

import dataclasses
import itertools
import os
import pathlib
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import tensorflow as tf
import tensorflow_datasets as tfds

from rsa_jax.preparation.frame_index import FrameIndex, index_path, load_index, read_frames
from rsa_jax.preparation.store import PreparationError

# Whole records that are read at a time: that of a long clip takes much memory.
_RECORDS = 8


@dataclasses.dataclass(frozen=True)
class StoredClip:
    """A stored clip.

    Attributes:
        id: its id, as UTF-8.
        label: its class.
        num_frames: number of stored frames.
        read: returns the JPEG images of the given frames.
    """

    id: bytes
    label: int
    num_frames: int
    read: Callable[[Iterable[int]], list[bytes]]


class StoredClips(Protocol):
    """The clips of a split."""

    def __getitem__(self, index: int) -> StoredClip:
        """The clip at a position of the split."""


def open_clips(builder: tfds.core.DatasetBuilder, split: str) -> StoredClips:
    """Opens the clips of a split. A data set prepared by version 0.1 has no index and is read by whole records.

    Raises:
        PreparationError: If the index is damaged.
    """
    path = index_path(pathlib.Path(builder.data_path), split)
    if not path.exists():
        return _Records(builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES))
    try:
        index = load_index(path)
    except (ValueError, zipfile.BadZipFile) as error:
        raise PreparationError(
            f"{path} cannot be read: {error}. Restore that file, or prepare the data set again with --overwrite."
        ) from error
    return _IndexedClips(index, builder.info.splits[split])


class _Records:
    """Clips that are read as whole records."""

    def __init__(self, source: Sequence[bytes]):
        self._source, self._few = source, threading.Semaphore(_RECORDS)

    def __getitem__(self, index: int) -> StoredClip:
        # The protocol-buffer parser: TFDS's would copy all stored images twice.
        with self._few:
            fields = tf.train.Example.FromString(self._source[index]).features.feature
        images = fields["frames"].bytes_list.value

        def read(frames: Iterable[int]) -> list[bytes]:
            return [images[i] for i in frames]

        return StoredClip(fields["id"].bytes_list.value[0], fields["label"].int64_list.value[0], len(images), read)


class _IndexedClips:
    """Clips of which single frames are read."""

    def __init__(self, index: FrameIndex, split: tfds.core.SplitInfo):
        self._index = index
        self._files = [os.open(path, os.O_RDONLY) for path in split.filepaths]
        weakref.finalize(self, _close, self._files)
        self._file_of_clip = list(
            itertools.chain.from_iterable([file] * n for file, n in zip(self._files, split.shard_lengths, strict=True))
        )

    def __getitem__(self, index: int) -> StoredClip:
        places = self._index.of_clip(index)

        def read(frames: Iterable[int]) -> list[bytes]:
            chosen = places[list(frames)].tolist()
            return read_frames(self._file_of_clip[index], int(self._index.positions[index]), chosen)

        return StoredClip(self._index.ids[index], int(self._index.labels[index]), len(places), read)


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)
