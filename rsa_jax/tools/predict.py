"""Predict classes for videos.

python -m rsa_jax predict --workdir DIR VIDEO ... [--top 5] [--json out.json] [--out DIR|FILE.gif] [--chunk 64]

VIDEO is a file in any container and codec that FFmpeg reads, a folder of frames, or a folder with either at any depth.
In a folder, videos are recognised by their extension, and images beside videos are ignored.
Frames are sampled, resized, compressed and cropped as in the preparation and evaluation of the workdir's data set. With
--chunk, a long video is split into chunks that are predicted one by one. A video that cannot be decoded is reported,
and the exit status is 1; the others are still predicted.
"""

# Worker processes may import this file. JAX is imported in `main`, so that they do not load it.
import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rsa_jax.errors import in_one_line
from rsa_jax.evaluation.chunks import Chunk, Reading, try_chunks
from rsa_jax.files import printable, write_json
from rsa_jax.flags import Parser, at_least, folder_or_url
from rsa_jax.preparation.parallel import WorkerDiedError, parallel_map
from rsa_jax.preparation.sources import find_clips

# Maximum number of chunks in the image of one video, and in the animation of all videos; more are subsampled evenly.
MOST_ROWS = 24
MOST_CLIPS = 64


class Prediction(NamedTuple):
    """Most probable classes of a chunk, in descending order."""

    chunk: Chunk
    classes: list[dict[str, Any]]

    def line(self) -> str:
        """Classes and probabilities as one line of text."""
        return ", ".join(f"{rank['name']} {rank['probability']:.1%}" for rank in self.classes)


def find_paths(arguments: Sequence[Path]) -> list[Path]:
    """Videos that the arguments name or contain, each once. An argument that contains none is kept as it is.

    Files in a folder that are no videos are named on standard error.
    """
    found: list[Path] = []
    for path in arguments:
        videos, unused = find_clips(path) if path.is_dir() else ([path], [])
        found += videos or [path]
        for reason in unused:
            print(f"Not used: {printable(Path(reason))}", file=sys.stderr)
    return list(dict.fromkeys(found))


def read_all_chunks(paths: Sequence[Path], reading: Reading, workers: int, failed: list[str]) -> Iterator[Chunk]:
    """Decode videos in parallel.

    Args:
      paths: paths of the videos.
      reading: sampling and decoding settings.
      workers: number of processes.
      failed: receives the reason for every video that cannot be read.
    """
    read = functools.partial(try_chunks, reading=reading)
    for _, chunks in parallel_map(read, paths, min(workers, len(paths))):
        if isinstance(chunks, str):
            failed.append(chunks)
            print(printable(Path(chunks)), file=sys.stderr, flush=True)
        else:
            yield from chunks


def ranking(probabilities: Float[np.ndarray, " K"], class_names: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The `top` most probable classes, in descending order."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"class": int(i), "name": class_names[i], "probability": float(probabilities[i])} for i in order]


def as_text(video: Sequence[Prediction]) -> str:
    """Predictions of one video as text: its path, then one line per class for each chunk."""
    lines = [printable(video[0].chunk.path)]
    for prediction in video:
        lines += [f"  {prediction.chunk}"] if len(video) > 1 else []
        lines += [f"  {100 * rank['probability']:6.2f} %  {rank['name']}" for rank in prediction.classes]
    return "\n".join(lines)


def as_json(video: Sequence[Prediction]) -> dict[str, Any]:
    """Predictions of one video for JSON. `start` (first frame) and `stop` (one past the last) count stored frames."""
    chunks = [
        {"start": it.chunk.start, "stop": it.chunk.stop, "seconds": it.chunk.seconds(), "classes": it.classes}
        for it in video
    ]
    return {"path": str(video[0].chunk.path), "chunks": chunks}


def spread(predictions: Sequence[Prediction], most: int) -> list[Prediction]:
    """Evenly spaced subset of at most `most` predictions."""
    return [predictions[i] for i in sorted({round(i) for i in np.linspace(0, len(predictions) - 1, most)})]


def draw_strip(video: Sequence[Prediction], num_frames: int, out: Path) -> None:
    """Draw a row of frames for each chunk of a video, under its prediction.

    Args:
      video: predictions of its chunks.
      num_frames: frames per clip; the first clip of a chunk is drawn.
      out: image file to write.
    """
    from rsa_jax.pictures.clip_figure import Row, draw_rows

    rows = []
    for prediction in spread(video, MOST_ROWS):
        frames = list(prediction.chunk.frames()[:num_frames])
        rows.append(Row(f"{prediction.chunk.title()}: {prediction.line()}", "black", frames))
    draw_rows(rows, out)


def draw_gif(predictions: Sequence[Prediction], num_frames: int, out: Path) -> None:
    """Animate the clips of chunks one after the other, beside their predictions."""
    from rsa_jax.pictures.clip_figure import annotate, save_animation

    images = []
    for chunk, classes in spread(predictions, MOST_CLIPS):
        shares = [(rank["name"], rank["probability"]) for rank in classes]
        images += annotate(chunk.frames()[:num_frames], chunk.title(), shares)
    save_animation(images, out)
    if len(predictions) > MOST_CLIPS:
        print(f"{printable(out)} shows {MOST_CLIPS} of {len(predictions)} chunks.", file=sys.stderr)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("predict", __doc__)
    add = parser.add_argument
    add("videos", type=Path, nargs="+", metavar="VIDEO", help="files, folders of frames, or folders of either")
    add("--workdir", type=folder_or_url, required=True, help="of a run")
    add("--checkpoint", default="best", help="best, latest or a step (%(default)s)")
    add("--top", type=at_least(1), default=5, help="number of classes to print (%(default)s)")
    add("--json", type=Path, help="JSON file for the predictions")
    add("--out", type=Path, help="folder for an image of each video, or a .gif file for all of them")
    add("--chunk", type=at_least(1), help="frames per chunk (default: the whole video)")
    add("--hop", type=at_least(1), help="frames from the start of a chunk to that of the next (half a chunk)")
    add("--batch_size", type=at_least(1), default=8, help="chunks per batch (%(default)s)")
    add("--workers", type=at_least(1), default=os.cpu_count(), help="processes that decode (%(default)s)")
    args = parser.parse_args(argv)
    if args.hop and not args.chunk:
        parser.error("--hop: needs --chunk")
    args.hop = args.hop or max(1, (args.chunk or 1) // 2)
    args.gif = args.out is not None and args.out.suffix.lower() == ".gif"
    try:
        _check_outputs(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def _check_outputs(args: argparse.Namespace) -> None:
    """Check the output paths.

    Raises:
        ValueError: If one cannot be written to.
    """
    from rsa_jax.pictures.clip_figure import check_picture

    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise ValueError(
            f"--json: {args.json}: " + ("is a folder" if args.json.is_dir() else "its folder does not exist")
        )
    if args.gif:
        check_picture(args.out, "gif")
    elif args.out and (args.out.is_file() or args.out.suffix.lower() in (".png", ".jpg", ".jpeg", ".mp4", ".webm")):
        raise ValueError(f"--out: expected a folder, or a file that ends with .gif, got {args.out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print predictions, and write the requested files. Return the exit status: 1 if a video failed."""
    args = _parse(argv)
    from rsa_jax.evaluation.inference import Predictor
    from rsa_jax.logs import setup_logging

    setup_logging()
    failed: list[str] = []
    videos: list[dict[str, Any]] = []
    moving: list[Prediction] = []
    with in_one_line(WorkerDiedError):
        predictor = Predictor(args.workdir, args.checkpoint)
        reading = dataclasses.replace(predictor.reading, length=args.chunk, hop=args.hop)
        if reading.sampling == "published" and args.chunk and args.chunk <= reading.num_frames:
            raise ValueError(
                f"--chunk: expected more than {reading.num_frames} frames, got {args.chunk}: with data.sampling="
                "published, as in this workdir, the network sees only the first frame of shorter chunks"
            )
        chunks = read_all_chunks(find_paths(args.videos), reading, args.workers, failed)
        predictions = (
            Prediction(chunk, ranking(probabilities, predictor.class_names, args.top))
            for chunk, probabilities in predictor.stream(chunks, args.batch_size)
        )
        for path, group in groupby(predictions, lambda prediction: prediction.chunk.path):
            video = list(group)
            print(as_text(video), flush=True)
            if reading.sampling == "published" and video[-1].chunk.stop - video[-1].chunk.start <= reading.num_frames:
                print(
                    f"  Note: {video[-1].chunk}: at most {reading.num_frames} frames; with data.sampling="
                    "published, the network sees only the first one.",
                    file=sys.stderr,
                )
            videos.append(as_json(video))
            if args.gif:
                moving += video
            elif args.out:
                args.out.mkdir(parents=True, exist_ok=True)
                name = printable(Path(path.name))[:50]  # a file's name may have 255 bytes
                draw_strip(video, reading.num_frames, args.out / f"{len(videos)} {name}.png")
        if args.json:
            run = {"workdir": str(args.workdir), "checkpoint": args.checkpoint}
            write_json(args.json, run | {"videos": videos, "failed": failed})
        if moving:
            draw_gif(moving, reading.num_frames, args.out)
    if failed:
        print(f"{len(failed)} of {len(failed) + len(videos)} videos could not be read.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
