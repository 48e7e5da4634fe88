"""Preparation that is interrupted and resumed."""

import errno
import functools
import json
import os

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from rsa_jax.preparation import frame_index, shards
from rsa_jax.preparation.clip import Clip, encode_clip
from rsa_jax.preparation.frame_index import read_frames
from rsa_jax.preparation.shards import Shards
from rsa_jax.preparation.video import VideoError
from tests.preparation.videos import write_video

ENCODE = functools.partial(encode_clip, size=(8, 8), quality=90, stride=1)
drawn = []


def draw(i):
    """One frame. Clip 5 is bad; Ctrl-C is pressed when clip 7 is first drawn."""
    drawn.append(i)
    if i == 5:
        raise VideoError("clip 5: bad")
    if i == 7 and drawn.count(7) == 1:
        raise KeyboardInterrupt
    return [np.full((8, 8, 3), i, np.uint8)]


def draw_frames(count):
    return [np.zeros((8, 8, 3), np.uint8)] * count


@pytest.fixture
def clips():
    drawn.clear()
    return [Clip(str(i), 0, functools.partial(draw, i)) for i in range(11)]


def serialize(clip, frames):
    return b" ".join([clip.id.encode(), *frames])


def write(folder, clips, **sizes):
    result = Shards(folder, clips, **{"smallest": 4} | sizes)
    with tqdm(disable=True) as progress:
        result.write(serialize, encode=ENCODE, workers=1, progress=progress)
    return result


def stored(result):
    files = [str(result.path(shard)) for shard in result.shards() if shard.examples]
    return [record.partition(b" ")[0].decode() for record in ArrayRecordDataSource(files)]


def test_what_is_finished_is_not_done_again(tmp_path, clips):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, clips)
    assert Shards(tmp_path, clips).num_done == 7
    result = write(tmp_path, clips)
    assert drawn == [*range(8), *range(7, 11)]
    assert stored(result) == ["0", "1", "2", "3", "4", "6", "7", "8", "9", "10"]
    assert result.left_out() == [{"id": "5", "reason": "clip 5: bad"}]
    assert [(shard.start, shard.stop) for shard in result.shards()] == [(0, 4), (4, 7), (7, 11)]


def test_a_killed_process_loses_one_shard_at_most(tmp_path, clips):
    """The second shard has a truncated file and no entry in the journal."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, clips)
    journal = tmp_path / "journal.json"
    journal.write_text(json.dumps(json.loads(journal.read_text())[:1]))
    (tmp_path / "00000004.array_record").write_bytes(b"cut off")
    drawn.remove(7)
    drawn.append(7)
    before = len(drawn)
    assert len(stored(write(tmp_path, clips))) == 10
    assert drawn[before:] == list(range(4, 11))


def test_a_shard_that_was_lost_is_written_again(tmp_path, clips):
    drawn.append(7)
    write(tmp_path, clips)
    (tmp_path / "00000000.array_record").unlink()
    before = len(drawn)
    assert len(stored(write(tmp_path, clips))) == 10
    assert drawn[before:] == [0, 1, 2, 3]


def test_a_clip_that_somebody_mended_is_tried_again(tmp_path):
    """The other clips of its shard are processed again, too."""
    video = tmp_path / "video.avi"
    video.write_bytes(b"")
    os.utime(video, (1, 1))
    clips = [Clip("good", 0, functools.partial(draw, 0)), Clip("bad", 0, str(video))]
    assert stored(write(tmp_path / "work", clips)) == ["good"]
    assert Shards(tmp_path / "work", clips).num_done == 2
    write_video(video, np.zeros((2, 16, 16, 3), np.uint8))
    assert Shards(tmp_path / "work", clips).num_done == 0
    assert stored(write(tmp_path / "work", clips)) == ["good", "bad"]


@pytest.mark.parametrize("method", ["__init__", "write", "close"])
def test_a_full_disk_costs_the_open_shard(tmp_path, clips, monkeypatch, method):
    """array_record raises a RuntimeError, mostly when the file is closed."""

    class Writer(ArrayRecordWriter):
        pass

    def fail(self, *args):
        raise RuntimeError("write() failed: No space left on device")

    drawn.append(7)
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"00000000\.array_record: .*No space left"):
        patch.setattr(shards, "ArrayRecordWriter", Writer)
        patch.setattr(Writer, method, fail)
        write(tmp_path, clips)
    assert Shards(tmp_path, clips).num_done == 0
    (tmp_path / "journal.json").write_text("[{")
    assert len(stored(write(tmp_path, clips))) == 10


def test_a_full_disk_costs_no_finished_shard(tmp_path, clips, monkeypatch):
    drawn.append(7)
    save = shards.FrameIndex.save

    def fail(self, path):
        if path.name.startswith("00000004"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(self, path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(shards.FrameIndex, "save", fail)
        write(tmp_path, clips)
    assert Shards(tmp_path, clips).num_done == 4
    before = len(drawn)
    assert len(stored(write(tmp_path, clips))) == 10
    assert drawn[before:] == list(range(4, 11))


def test_a_clip_too_large_for_a_record_is_left_out_by_name(tmp_path, clips, monkeypatch):
    """A protocol buffer of 2 GiB cannot be written: it would end every try."""
    drawn.append(7)
    frame = len(ENCODE(clips[0])[0])
    clips[2] = Clip("long", 0, functools.partial(draw_frames, 3))
    monkeypatch.setattr(shards, "LARGEST_RECORD", 2 * frame)
    result = write(tmp_path, clips)
    assert stored(result) == ["0", "1", "3", "4", "6", "7", "8", "9", "10"]
    reasons = {clip["id"]: clip["reason"] for clip in result.left_out()}
    assert "long" in reasons["long"] and "3 frames take 2 GiB or more" in reasons["long"]


def test_the_index_finds_the_frames_of_every_clip(tmp_path, clips):
    """Across files, without the clip that was left out, and after an interruption."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, clips)
    result = write(tmp_path, clips)
    index = result.index()
    assert index.ids.tolist() == [name.encode() for name in stored(result)]
    files = [result.path(shard) for shard in result.shards() for _ in range(shard.examples)]
    for clip, path in enumerate(files):
        with path.open("rb") as file:
            images = read_frames(file.fileno(), int(index.positions[clip]), index.of_clip(clip).tolist())
        assert images == ENCODE(clips[int(index.ids[clip])])


def test_no_index_where_frames_are_not_found(tmp_path, clips, monkeypatch):
    """Another version of array_record may write another layout."""
    drawn.append(7)
    with monkeypatch.context() as patch:
        patch.setattr(frame_index, "_CHUNK_HEADER", 48)
        assert write(tmp_path / "other", clips).index() is None
    assert write(tmp_path / "same", clips).index() is not None


def test_few_files_however_many_clips(tmp_path):
    clips = [Clip(str(i), 0, functools.partial(draw, 0)) for i in range(10)]
    assert [shard.stop for shard in write(tmp_path, clips, smallest=2, most_shards=3).shards()] == [4, 8, 10]
