"""Examples on their way into shards: written in parallel, interrupted at any point, gone on with later."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from rsa_jax.data.clip import Clip
from rsa_jax.data.parallel import parallel_map
from rsa_jax.files import write_json

# Clips of a shard, and shards of a split.
SMALLEST, MOST_SHARDS = 256, 256


@dataclasses.dataclass
class Shard:
    """A file of examples of the clips start..stop-1 of a split, whole and on the disk.

    Attributes:
      start: first clip.
      stop: clip after the last one.
      examples: clips in the file; without any there is no file.
      left_out: the other ones: id, reason, and when its source was last changed, of each.
    """

    start: int
    stop: int
    examples: int
    left_out: list[dict[str, Any]]


class Shards:
    """The shards of a split in a folder that outlives the process.

    Args:
      folder: of this split's shards and the journal of what is done.
      clips: of the split, in order.
      smallest: number of clips that a new shard has at least, where that many are left.
      most_shards: that the split has, if none was left unfinished. A reader holds all of them open, and 1024 files is a
        usual limit.
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
        """The file of a shard."""
        return self._folder / f"{shard.start:08d}.array_record"

    def shards(self) -> list[Shard]:
        """What is done, in the order of the clips."""
        return sorted(self._done, key=lambda shard: shard.start)

    @property
    def num_done(self) -> int:
        """Clips that need no more work."""
        return sum(shard.stop - shard.start for shard in self._done)

    def left_out(self) -> list[dict[str, str]]:
        """Clips without an example: id and reason of each."""
        return [{name: clip[name] for name in ("id", "reason")} for shard in self.shards() for clip in shard.left_out]

    def write(
        self,
        serialize: Callable[[Clip, list[bytes]], bytes],
        *,
        encode: Callable[[Clip], list[bytes] | str],
        workers: int,
        progress: tqdm,
    ) -> None:
        """Writes what is not done yet. However it ends, the clips that were finished stay finished.

        Args:
          serialize: makes a record of a clip and its JPEG frames.
          encode: makes the JPEG frames of a clip, or says why there are none.
          workers: processes that decode.
          progress: counts the clips.
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
        shard = Shard(start, start, 0, [])
        # Uncompressed: JPEG does not get smaller.
        writer = ArrayRecordWriter(str(self.path(shard)), "group_size:1,uncompressed")
        try:
            while shard.stop < stop:
                clip, frames = next(results)
                if isinstance(frames, str):
                    shard.left_out.append({"id": clip.id, "reason": frames, "changed": _last_change(clip)})
                else:
                    self._append(writer, shard, serialize(clip, frames))
                shard.stop += 1
                progress.update()
        except BaseException as error:
            if not isinstance(error, OSError):
                self._finish(shard, writer)
            raise
        self._finish(shard, writer)

    def _append(self, writer: ArrayRecordWriter, shard: Shard, record: bytes) -> None:
        try:
            writer.write(record)
        except RuntimeError as error:  # a full disk: the shard is worth nothing
            raise OSError(f"{self.path(shard)}: {error}") from error
        shard.examples += 1

    def _finish(self, shard: Shard, writer: ArrayRecordWriter) -> None:
        """Also of a shard that an interruption made short."""
        writer.close()
        if shard.examples:
            with self.path(shard).open("rb") as file:
                os.fsync(file)  # a power cut must not leave the name alone
        else:
            self.path(shard).unlink()
        if shard.stop > shard.start:
            self._done.append(shard)
            write_json(self._journal, [dataclasses.asdict(shard) for shard in self._done])

    def _read_journal(self) -> list[Shard]:
        """Nothing where it cannot be read: a full disk may have cut it off."""
        try:
            return [Shard(**fields) for fields in json.loads(self._journal.read_text())]
        except (OSError, ValueError, TypeError):
            return []

    def _is_good(self, shard: Shard, clips: Mapping[str, Clip]) -> bool:
        """Whether its file is there, and nobody has mended a clip that was left out."""
        there = not shard.examples or self.path(shard).exists()
        return there and all(clip["changed"] == _last_change(clips[clip["id"]]) for clip in shard.left_out)

    def _missing(self) -> Iterator[tuple[int, int]]:
        """Ranges of clips that are not done, none longer than a shard."""
        after = len(self._clips)
        ends = [(shard.start, shard.stop) for shard in self.shards()]
        for (_, stop), (start, _) in zip([(0, 0), *ends], [*ends, (after, after)], strict=True):
            for first in range(stop, start, self._longest):
                yield first, min(first + self._longest, start)


def _last_change(clip: Clip) -> int | None:
    """Of its source, in nanoseconds; None of what is no file."""
    if callable(clip.source):
        return None
    path = pathlib.Path(clip.source)
    return path.stat().st_mtime_ns if path.exists() else None
