"""Writing of examples to shards: parallel, interruptible at any point, resumable."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from rsa_jax.files import write_json
from rsa_jax.preparation.clip import Clip
from rsa_jax.preparation.frame_index import FileIndex, FrameIndex, load_index, merge, read_frames
from rsa_jax.preparation.parallel import parallel_map

# Minimum clips per shard, maximum shards per split.
SMALLEST, MOST_SHARDS = 256, 256
# A protocol buffer holds less than 2 GiB; 1 MiB is for all but the frames.
LARGEST_RECORD = (1 << 31) - (1 << 20)


@dataclasses.dataclass
class Shard:
    """A complete file on disk with the examples of clips start..stop-1 of a split.

    Attributes:
      start: first clip.
      stop: clip after the last one.
      examples: number of clips in the file; if 0, there is no file.
      left_out: id, reason and last change of the source for each of the other clips.
    """

    start: int
    stop: int
    examples: int
    left_out: list[dict[str, Any]]


class Shards:
    """The shards of a split in a folder that outlives the process.

    Args:
      folder: folder of this split's shards and the journal of finished ones.
      clips: clips of the split, in order.
      smallest: minimum number of clips per new shard, unless fewer remain.
      most_shards: maximum number of shards, if none was interrupted. A reader holds all of them open, and 1024 files
        is a usual limit.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        clips: Sequence[Clip],
        *,
        smallest: int = SMALLEST,
        most_shards: int = MOST_SHARDS,
    ):
        self._folder, self._clips = folder, clips
        self._longest = max(smallest, -(-len(clips) // most_shards))
        self._journal = folder / "journal.json"
        folder.mkdir(parents=True, exist_ok=True)
        by_id = {clip.id: clip for clip in clips}
        self._done = [shard for shard in self._read_journal() if self._is_good(shard, by_id)]

    def path(self, shard: Shard) -> pathlib.Path:
        """Path of a shard's file."""
        return self._folder / f"{shard.start:08d}.array_record"

    def _index_path(self, shard: Shard) -> pathlib.Path:
        return self.path(shard).with_suffix(".npz")

    def shards(self) -> list[Shard]:
        """Finished shards, in the order of the clips."""
        return sorted(self._done, key=lambda shard: shard.start)

    def index(self) -> FrameIndex | None:
        """Index of the frames of all examples, in order. None if a file has none."""
        paths = [self._index_path(shard) for shard in self.shards() if shard.examples]
        return merge([load_index(path) for path in paths]) if all(path.exists() for path in paths) else None

    @property
    def num_done(self) -> int:
        """Number of clips that need no more work."""
        return sum(shard.stop - shard.start for shard in self._done)

    def left_out(self) -> list[dict[str, str]]:
        """Id and reason of each clip without an example."""
        return [{name: clip[name] for name in ("id", "reason")} for shard in self.shards() for clip in shard.left_out]

    def write(
        self,
        serialize: Callable[[Clip, list[bytes]], bytes],
        *,
        encode: Callable[[Clip], list[bytes] | str],
        workers: int,
        progress: tqdm,
    ) -> None:
        """Writes the remaining clips. An interruption or error keeps the finished ones.

        Args:
          serialize: makes a record from a clip and its JPEG frames.
          encode: returns the JPEG frames of a clip, or an error message.
          workers: number of decoding processes.
          progress: progress bar over the clips.
        """
        pieces = list(self._missing())
        todo = (self._clips[i] for start, stop in pieces for i in range(start, stop))
        with contextlib.closing(parallel_map(encode, todo, workers)) as results:
            for start, stop in pieces:
                self._write_shard(start, stop, results, serialize, progress)

    def _write_shard(
        self,
        start: int,
        stop: int,
        results: Iterator[tuple[Clip, list[bytes] | str]],
        serialize: Callable[[Clip, list[bytes]], bytes],
        progress: tqdm,
    ) -> None:
        shard, index = Shard(start, start, 0, []), FileIndex()
        self._index_path(shard).unlink(missing_ok=True)
        with self._writing(shard):
            # Uncompressed: JPEG does not compress further.
            writer = ArrayRecordWriter(str(self.path(shard)), "group_size:1,uncompressed")
        try:
            while shard.stop < stop:
                clip, frames = next(results)
                if not isinstance(frames, str) and sum(map(len, frames)) > LARGEST_RECORD:
                    frames = f"{clip}: {len(frames)} frames take 2 GiB or more. Split the video, or use --stride."
                if isinstance(frames, str):
                    shard.left_out.append({"id": clip.id, "reason": frames, "changed": _last_change(clip)})
                else:
                    record = serialize(clip, frames)
                    with self._writing(shard):
                        writer.write(record)
                    index.add(record, frames, clip.label, clip.id)
                    shard.examples += 1
                shard.stop += 1
                progress.update()
        except BaseException as error:
            if not isinstance(error, OSError):
                self._finish(shard, writer, index)
            raise
        self._finish(shard, writer, index)

    @contextlib.contextmanager
    def _writing(self, shard: Shard) -> Iterator[None]:
        """Turns the error of a full disk, which makes the shard unusable, into an OSError with the path."""
        try:
            yield
        except RuntimeError as error:
            raise OSError(f"{self.path(shard)}: {error}") from error

    def _finish(self, shard: Shard, writer: ArrayRecordWriter, index: FileIndex) -> None:
        """Closes and records a shard, even one that an interruption cut short."""
        with self._writing(shard):
            writer.close()
        if shard.examples:
            with self.path(shard).open("rb") as file:
                os.fsync(file)  # a power cut must not leave only the name
                if _is_right(places := index.finish(), file.fileno(), shard.examples):
                    places.save(self._index_path(shard))
        else:
            self.path(shard).unlink()
        if shard.stop > shard.start:
            self._done.append(shard)
            write_json(self._journal, [dataclasses.asdict(shard) for shard in self._done])

    def _read_journal(self) -> list[Shard]:
        """Recorded shards; none if the journal cannot be read, since a full disk may have truncated it."""
        try:
            return [Shard(**fields) for fields in json.loads(self._journal.read_text())]
        except (OSError, ValueError, TypeError):
            return []

    def _is_good(self, shard: Shard, clips: Mapping[str, Clip]) -> bool:
        """Whether its file exists and the sources of its left-out clips are unchanged."""
        there = not shard.examples or self.path(shard).exists()
        return there and all(clip["changed"] == _last_change(clips[clip["id"]]) for clip in shard.left_out)

    def _missing(self) -> Iterator[tuple[int, int]]:
        """Ranges of unfinished clips, none longer than a shard."""
        after = len(self._clips)
        ends = [(shard.start, shard.stop) for shard in self.shards()]
        for (_, stop), (start, _) in zip([(0, 0), *ends], [*ends, (after, after)], strict=True):
            for first in range(stop, start, self._longest):
                yield first, min(first + self._longest, start)


def _is_right(index: FrameIndex, file: int, examples: int) -> bool:
    """Whether the last frame of each clip is in its place. Another version of array_record might write it elsewhere."""
    if len(index.positions) != examples:  # interrupted between the two
        return False
    try:
        for clip, position in enumerate(index.positions):
            read_frames(file, int(position), index.of_clip(clip)[-1:].tolist())
    except ValueError:
        return False
    return True


def _last_change(clip: Clip) -> int | None:
    """Modification time of the clip's source in nanoseconds; None if it is not a file."""
    if callable(clip.source):
        return None
    path = pathlib.Path(clip.source)
    return path.stat().st_mtime_ns if path.exists() else None
