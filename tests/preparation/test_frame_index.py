"""Places of frames in ArrayRecord files."""

import os

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from rsa_jax.preparation import frame_index
from rsa_jax.preparation.frame_index import FileIndex, load_index, merge, read_frames

BLOCK = frame_index._BLOCK - frame_index._BLOCK_HEADER


def write(path, clips):
    """Writes clips, which are lists of frames, as records; returns their index."""
    writer, index = ArrayRecordWriter(str(path), "group_size:1,uncompressed"), FileIndex()
    for i, frames in enumerate(clips):
        record = b"head" + b" ".join(frames) + b"tail"
        writer.write(record)
        index.add(record, frames, i % 7, f"clip {i}")
    writer.close()
    return index.finish()


def read(path, index, clip, chosen=slice(None)):
    file = os.open(path, os.O_RDONLY)
    try:
        return read_frames(file, int(index.positions[clip]), index.of_clip(clip)[chosen].tolist())
    finally:
        os.close(file)


@pytest.mark.parametrize("near", [0, 1 << 20])
@pytest.mark.parametrize(
    "sizes",
    [
        [1],
        [10] * 3000,
        [127, 128, 16383, 16384, 16385],
        range(BLOCK - 220, BLOCK + 220),  # records end before, at and after the end of a block
        np.random.default_rng(0).integers(1, 200_000, 200),
        [3_000_000, 1, 2_100_000],
    ],
    ids=["one", "many", "varint", "block", "any", "large"],
)
def test_every_frame_is_found(tmp_path, monkeypatch, sizes, near):
    monkeypatch.setattr(frame_index, "_NEAR", near)
    rng, path = np.random.default_rng(1), tmp_path / "x.array_record"
    clips = [[rng.bytes(int(size)), rng.bytes(5), rng.bytes(int(size) // 3 + 1)] for size in sizes]
    index = write(path, clips)
    for clip, frames in enumerate(clips):
        assert read(path, index, clip) == frames
        assert read(path, index, clip, [2, 0, 0]) == [frames[2], frames[0], frames[0]]
    assert index.ids[-1] == f"clip {len(clips) - 1}".encode()
    assert index.labels.tolist() == [i % 7 for i in range(len(clips))]


def test_equal_frames_are_told_apart(tmp_path):
    index = write(tmp_path / "x.array_record", [[b"same", b"same"]])
    assert index.frames["offset"].tolist() == [4, 9]


def test_a_changed_frame_is_refused(tmp_path):
    path = tmp_path / "x.array_record"
    index = write(path, [[b"first frame", b"second frame"]])
    path.write_bytes(path.read_bytes().replace(b"second", b"Second"))
    assert read(path, index, 0, [0]) == [b"first frame"]
    with pytest.raises(ValueError, match="hash mismatch"):
        read(path, index, 0)


def test_indexes_are_merged_and_saved(tmp_path):
    parts = [[[b"a", b"bc"], [b"d"]], [[b"e", b"f", b"gh"]]]
    paths = [tmp_path / f"{i}.array_record" for i in range(2)]
    indexes = [write(path, clips) for path, clips in zip(paths, parts, strict=True)]
    merge(indexes).save(tmp_path / "index.npz")
    index = load_index(tmp_path / "index.npz")
    assert [read(paths[file], index, clip) for clip, file in enumerate((0, 0, 1))] == parts[0] + parts[1]
