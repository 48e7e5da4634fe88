"""Times reading of long clips, of which training takes a few frames: whole records against the chosen frames.

Three file systems: the local disk, with nothing of the files in the page cache; a simulated one, where every read takes
20 ms longer, as over a network; and one where all reads together also get at most 125 MB/s. The simulation sleeps in
the reading thread. It counts one read for a whole record, and no time for opening the files and reading the index.

python -m benchmarks.long_clips [--repeats 2] [--turn 96] [--frames 16] [--batch 8]
"""

import argparse
import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from ml_collections import ConfigDict

from benchmarks.input_pipeline import make_clip
from benchmarks.measure import interleaved, report, table
from configs import ssv2
from rsa_jax.input_pipeline import stored_clips
from rsa_jax.input_pipeline.pipeline import train_batches
from rsa_jax.preparation import builder
from rsa_jax.preparation.datasets.video_folder import VideoFolder, VideoFolderConfig
from rsa_jax.preparation.store import data_path, prepare
from rsa_jax.preparation.video import encode_jpeg

LENGTHS, CLIPS = (50, 265, 2000), 24
WHOLE, CHOSEN = "whole records", "chosen frames"
# Seconds that a read takes longer, and bytes per second of all reads.
DISKS: dict[str, tuple[float, float]] = {
    "local disk": (0, np.inf),
    "20 ms per read": (0.02, np.inf),
    "20 ms, 125 MB/s": (0.02, 125e6),
}


def make_dataset(folder: Path, length: int, images: Sequence[bytes]) -> ConfigDict:
    """Prepares a data set of clips of `length` frames, which repeat the images; returns a configuration for it."""
    for name in [f"train/a/{i:02}.mp4" for i in range(CLIPS)] + ["validation/a/00.mp4"]:
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = ssv2.get_config()
    config.data.update(name=f"video_folder/of_{length}", data_dir=str(folder / "prepared"))
    options = VideoFolderConfig(name=f"of_{length}", source=str(folder / "source"))
    frames = list(itertools.islice(itertools.cycle(images), length))
    with mock.patch.object(builder, "encode_clip", lambda clip, **_: frames):
        path = data_path(config.data.name, config.data.data_dir)
        prepare(lambda: VideoFolder(data_dir=config.data.data_dir, config=options), path)
    return config


@contextlib.contextmanager
def disk(seconds: float, rate: float) -> Iterator[None]:
    """Makes every read slower; see `DISKS`."""
    pread, read_record = os.pread, ArrayRecordDataSource.__getitem__
    link = threading.Lock()

    def wait(size: int) -> None:
        time.sleep(seconds)
        with link:
            time.sleep(size / rate)

    def slow_pread(file: int, size: int, position: int) -> bytes:
        wait(size)
        return pread(file, size, position)

    def slow_record(self: ArrayRecordDataSource, index: int) -> bytes:
        record = read_record(self, index)
        wait(len(record))
        return record

    if not seconds:
        yield
        return
    with (
        mock.patch.object(os, "pread", slow_pread),
        mock.patch.object(ArrayRecordDataSource, "__getitem__", slow_record),
    ):
        yield


def read_so_far() -> tuple[int, int]:
    """Bytes and calls of this process's reads."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["syscr"])


def forget(folder: Path) -> None:
    """Removes the files of a folder from the page cache."""
    for path in folder.rglob("*array_record*"):
        with path.open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def contender(config: ConfigDict, steps: int, batch: int, *, whole: bool, noted: list[Any]) -> Callable[[], None]:
    """A turn of `steps` batches. It notes the bytes and calls of its reads."""
    turns = itertools.count()
    folder = data_path(config.data.name, config.data.data_dir)

    def run() -> None:
        before = read_so_far()
        # Opening reads the index; here the data sets are too small for that to matter, except to the bytes.
        for arrays in train_batches(config.data, batch_size=batch, seed=next(turns), num_steps=steps):
            assert len(arrays["label"]) == batch
        noted[:] = [after - old for after, old in zip(read_so_far(), before, strict=True)]
        forget(folder)

    def run_whole() -> None:
        with mock.patch.object(stored_clips, "index_path", lambda *_: folder / "none"):
            run()

    return run_whole if whole else run


def measure(config: ConfigDict, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each disk and way of reading."""
    rows = []
    for name, (seconds, rate) in DISKS.items():
        noted: dict[str, list[int]] = {WHOLE: [], CHOSEN: []}
        turns = {
            way: contender(config, args.turn // args.batch, args.batch, whole=way == WHOLE, noted=noted[way])
            for way in noted
        }
        with disk(seconds, rate):
            times = interleaved(turns, args.repeats)
        for way, (size, calls) in noted.items():
            row = {"disk": name, "way": way, "MB": size / 1e6 / args.turn, "reads": calls / args.turn}
            rows.append(row | {"clips/s": args.turn / times[way]})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.long_clips", description=__doc__)
    parser.add_argument("--repeats", type=int, default=2, help="turns of each contender (%(default)s)")
    parser.add_argument("--turn", type=int, default=96, help="clips per turn, a multiple of --batch (%(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="frames per clip (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="clips per batch (%(default)s)")
    args = parser.parse_args(argv)
    images = encode_jpeg(make_clip(np.random.default_rng(0), (240, 320)), 90)
    rows, results = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for length in LENGTHS:
            config = make_dataset(Path(folder), length, images)
            config.data.num_frames = args.frames
            results[str(length)] = measured = measure(config, args)
            rows += [[length, *row.values()] for row in measured]
            print(table(["frames", *measured[0]], rows[-len(measured) :]), flush=True)
    header = ["stored frames", "disk", "reading", "MB per clip", "reads per clip", "clips/s"]
    title = f"Batches of {args.batch} clips; {args.frames} frames of each are decoded"
    report("long_clips", {title: table(header, rows)}, results)


if __name__ == "__main__":
    main()
