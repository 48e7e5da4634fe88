"""Times the input pipeline, to the device and through the augmentation there, against a TSN-style loader.

Both read the same JPEG frames of a synthetic data set. The TSN-style loader is typical of training code in PyTorch:
processes that decode, crop, resize and normalise with Pillow and NumPy. On a machine with other load, trust CPU time.

python -m benchmarks.input_pipeline [--repeats 5] [--clips 384] [--frames 16] [--batch 8]
"""

# Worker processes import this file too: TensorFlow is imported inside the functions to keep it out of them.
import argparse
import collections
import concurrent.futures
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from benchmarks.measure import interleaved, machine, report, table
from configs import ssv2
from rsa_jax.input_pipeline import sampling
from rsa_jax.input_pipeline.augmentation import CROP_OFFSETS, IMAGENET_MEAN, IMAGENET_STD, crop_sizes
from rsa_jax.preparation.video import encode_jpeg
from rsa_jax.training.step import make_augment

PEER, TO_DEVICE, AUGMENTED = "PIL, TSN-style", "rsa-jax, to the device", "rsa-jax, augmented"
# The data set: frames per clip, classes, clips per class in each split.
STORED, CLASSES, CLIPS = 40, ("left", "right"), {"train": 24, "validation": 1}
# Demand of a large machine: number of GPUs, clips/s of each.
GPUS, GPU_RATE = 8, 300

# Memory shared by the baseline's workers and the main process: [batches in flight, batch, values per clip].
_shared: np.ndarray


def make_clip(rng: np.random.Generator, size: tuple[int, int]) -> list[np.ndarray]:
    """Frames of large and small blurred blobs that move under a fixed grain: about 15 kB each as JPEG."""
    height, width = size
    canvas = np.zeros((height + STORED, width + 2 * STORED, 3), np.float32)
    for cell, strength in ((40, 50), (10, 12), (4, 3)):
        coarse = rng.normal(0, strength, (canvas.shape[0] // cell, canvas.shape[1] // cell, 3))
        image = Image.fromarray(np.clip(128 + coarse, 0, 255).astype(np.uint8))
        canvas += np.asarray(image.resize(canvas.shape[1::-1], Image.Resampling.BICUBIC), np.float32) - 128
    grain = rng.normal(0, 1, (height, width, 1))
    windows = (canvas[t : t + height, 2 * t : 2 * t + width] for t in range(STORED))
    return [np.clip(128 + window + grain, 0, 255).astype(np.uint8) for window in windows]


def write_images(folder: Path, images: Sequence[bytes]) -> None:
    """Writes images to folder/00.jpg, ..."""
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        (folder / f"{index:02}.jpg").write_bytes(image)


def make_dataset(folder: Path) -> tuple[ConfigDict, float]:
    """Prepares a data set, and writes its stored frames to folder/stored for the baseline.

    Returns:
        The published recipe's configuration for it, and the mean size of a stored frame in kB.
    """
    import tensorflow_datasets as tfds

    from rsa_jax.preparation.datasets.video_folder import VideoFolder, VideoFolderConfig
    from rsa_jax.preparation.store import data_path, open_prepared, prepare, quiet

    config = ssv2.get_config()
    config.data.update(name="video_folder/made_up", data_dir=str(folder / "prepared"))
    videos = VideoFolderConfig(name="made_up", source=str(folder / "source"))
    rng = np.random.default_rng(0)
    for split, count in CLIPS.items():
        for name in CLASSES:
            for index in range(count):
                images = encode_jpeg(make_clip(rng, (videos.height, videos.width)), 95)
                write_images(folder / "source" / split / name / f"{index:02}", images)
    path = data_path(config.data.name, config.data.data_dir)
    with mock.patch.object(tempfile, "tempdir", str(folder)):  # TFDS leaves an empty folder there
        prepare(lambda: VideoFolder(data_dir=config.data.data_dir, config=videos), path)
    builder = open_prepared(path)
    source = builder.as_data_source("train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    sizes: list[int] = []
    with quiet():
        for index, record in enumerate(source):
            skip = {"frames": tfds.decode.SkipDecoding()}
            images = builder.info.features.deserialize_example(record, decoders=skip)["frames"].numpy().tolist()
            write_images(folder / "stored" / f"{index:02}", images)
            sizes += map(len, images)
    return config, float(np.mean(sizes)) / 1000


def pil_clip(folder: Path, rng: np.random.Generator, data: ConfigDict) -> np.ndarray:
    """One clip after TSN's transforms, before normalisation: uint8 [T, S, S, 3]."""
    chosen = sampling.train_frames(STORED, data.num_frames, rng.random(data.num_frames), data.sampling)
    images = []
    for index in chosen:
        with Image.open(folder / f"{index:02}.jpg") as image:
            images.append(image.convert("RGB"))
    width, height = images[0].size
    crop_height, crop_width = rng.choice(crop_sizes(min(width, height), data.crop_scales, data.crop_distortion))
    row, column = CROP_OFFSETS[rng.integers(len(CROP_OFFSETS))]
    top, left = row * ((height - crop_height) // 4), column * ((width - crop_width) // 4)
    box = (left, top, left + crop_width, top + crop_height)
    side = (data.image_size, data.image_size)
    images = [image.crop(box).resize(side, Image.Resampling.BILINEAR) for image in images]
    if rng.random() < 0.5:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    return np.stack([np.asarray(image) for image in images])


def _start_worker(memory: Any, slots: int, batch: int) -> None:
    global _shared
    _shared = np.frombuffer(memory, np.float32).reshape(slots, batch, -1)


def pil_batch(folder: Path, step: int, data: ConfigDict) -> float:
    """Writes a normalised batch to shared memory, as a DataLoader worker does; returns the CPU seconds."""
    start = time.process_time()
    rng = np.random.default_rng(step)
    clips = sorted(folder.iterdir())
    slots, batch, _ = _shared.shape
    # One row of pixels at a time: NumPy is slow when the last axis has 3 entries.
    rows = _shared[step % slots].reshape(batch, -1, data.image_size * 3)
    scale = np.tile(1 / (255 * np.array(IMAGENET_STD)), data.image_size).astype(np.float32)
    shift = np.tile(np.array(IMAGENET_MEAN) / IMAGENET_STD, data.image_size).astype(np.float32)
    for target, index in zip(rows, rng.integers(len(clips), size=(batch,)), strict=True):
        np.multiply(pil_clip(clips[index], rng, data).reshape(target.shape), scale, out=target)
        target -= shift
    return time.process_time() - start


def pil_contender(
    pool: concurrent.futures.Executor, slots: int, folder: Path, data: ConfigDict, steps: int
) -> Callable[[], float]:
    """A turn of `steps` batches, `slots` in flight (two per worker, as in a DataLoader); it returns CPU seconds."""

    def run() -> float:
        waiting: collections.deque[concurrent.futures.Future[float]] = collections.deque()
        seconds = 0.0
        for step in range(steps):
            if len(waiting) == slots:
                seconds += waiting.popleft().result()
            waiting.append(pool.submit(pil_batch, folder, step, data))
        return seconds + sum(future.result() for future in waiting)

    return run


def pipeline_contender(
    config: ConfigDict, batch: int, steps: int, turns: int, finish: Callable[[dict[str, Any]], Any]
) -> Callable[[], float]:
    """A turn of `steps` batches that waits for `finish` of each, one batch behind; it returns CPU seconds.

    Each turn has its own iterator, created beforehand. Tracing its graph does not count, nothing is read before its
    first batch, and it ends with the turn's last batch. So no turn gets batches that were prefetched while another
    contender ran, and none keeps working after its turn.
    """
    from rsa_jax.input_pipeline.pipeline import train_batches

    def iterator(turn: int) -> Iterator[dict[str, np.ndarray]]:
        start = turn * steps
        return train_batches(config.data, batch_size=batch, seed=config.seed, start_step=start, num_steps=start + steps)

    iterators = iter([iterator(turn) for turn in range(turns)])

    def run() -> float:
        start = time.process_time()
        before = None
        for arrays in next(iterators):
            output = finish(arrays)
            jax.block_until_ready(before)
            before = output
        jax.block_until_ready(before)
        return time.process_time() - start

    return run


def augmented_clips(config: ConfigDict) -> Callable[[dict[str, Any]], jax.Array]:
    """Everything that the training step does before the network, compiled."""
    augment = make_augment(config, flip_pairs=())
    return jax.jit(lambda batch: augment(batch).clips)


def measure(args: argparse.Namespace, folder: Path, cores: int) -> dict[str, Any]:
    """Seconds and CPU seconds per turn of each contender, and the mean size of a stored frame in kB."""
    config, size = make_dataset(folder)
    config.data.num_frames = args.frames
    print(f"{len(CLASSES) * CLIPS['train']} clips of {STORED} frames of {size:.1f} kB on average", flush=True)
    steps, turns, slots = args.clips // args.batch, args.repeats + 1, 2 * cores
    spawn = multiprocessing.get_context("spawn")
    memory = spawn.RawArray("f", slots * args.batch * args.frames * config.data.image_size**2 * 3)
    with concurrent.futures.ProcessPoolExecutor(cores, spawn, _start_worker, (memory, slots, args.batch)) as pool:
        contenders = {
            PEER: pil_contender(pool, slots, folder / "stored", config.data, steps),
            TO_DEVICE: pipeline_contender(config, args.batch, steps, turns, jax.device_put),
            AUGMENTED: pipeline_contender(config, args.batch, steps, turns, augmented_clips(config)),
        }
        cpu: dict[str, list[float]] = {name: [] for name in contenders}

        def noted(name: str) -> Callable[[], None]:
            return lambda: cpu[name].append(contenders[name]())

        seconds = interleaved({name: noted(name) for name in contenders}, args.repeats)
    medians = {name: statistics.median(values[1:]) for name, values in cpu.items()}
    return {"seconds": seconds, "CPU seconds": medians, "kilobytes": size, "clips": args.clips, "cores": cores}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.input_pipeline", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contender (%(default)s)")
    parser.add_argument("--clips", type=int, default=384, help="clips per turn, a multiple of --batch (%(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="frames per clip (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="clips per batch (%(default)s)")
    args = parser.parse_args(argv)
    if args.clips < args.batch or args.clips % args.batch:
        parser.error(f"--clips {args.clips} is not a multiple of --batch {args.batch}")
    cores = machine()["cores"]
    with tempfile.TemporaryDirectory() as folder:
        results = measure(args, Path(folder), cores)
    rates = {name: args.clips / value for name, value in results["seconds"].items()}
    busy = {name: value / args.clips for name, value in results["CPU seconds"].items()}
    rows = [
        [name, rate, rate / cores, 1000 * cores / rate, rate / rates[PEER], 1000 * busy[name], busy[PEER] / busy[name]]
        for name, rate in rates.items()
    ]
    header = [
        "",
        "clips/s",
        "clips/s and core",
        "ms per clip and core",
        "ratio to PIL",
        "CPU ms per clip",
        "ratio to PIL",
    ]
    title = (
        f"Input pipeline; batches of {args.batch} clips of {args.frames} frames, from JPEG of 320 x 240 "
        f"({results['kilobytes']:.1f} kB) to 224²; {cores} cores"
    )
    wanted = GPUS * GPU_RATE
    line = (
        f"{GPUS} GPUs at {GPU_RATE} clips/s each need {wanted * cores / rates[TO_DEVICE]:.0f} such cores with "
        f'"{TO_DEVICE}"; by CPU time, {wanted * busy[TO_DEVICE]:.0f}.'
    )
    report("input_pipeline", {title: f"{table(header, rows)}\n\n{line}"}, results)


if __name__ == "__main__":
    main()
