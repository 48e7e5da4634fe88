"""Prepare a data set: decode videos and store their frames for training.

python -m rsa_jax prepare something_something_v2 --source DIR [--data_dir DIR]
python -m rsa_jax prepare video_folder/my_videos --source DIR

The same command resumes an interrupted preparation.
"""

# Worker processes may import this file. TensorFlow is imported in the functions, so that they do not load it.
import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rsa_jax.errors import is_mistake
from rsa_jax.flags import Parser, at_least

# Arguments of the tool itself; the others are options of a data set.
_TOOL = ("name", "data_dir", "overwrite", "check")


def _parser() -> Parser:
    # Arguments that are not given are suppressed: the data set has its own defaults.
    parser = Parser("prepare", __doc__, argument_default=argparse.SUPPRESS)
    add = parser.add_argument
    add(
        "name",
        help="data set and, behind a slash, its variant, such as something_something_v2, diving48/v1 or "
        "video_folder/my_videos; an unknown name lists all",
    )
    add(
        "--source",
        help="folder of the videos, frames or archives; for video_folder: CLASS_NAME/CLIP, or train/, "
        "validation/ and test/ with such folders, any of them",
    )
    add("--data_dir", default="~/tensorflow_datasets", help="folder of prepared data sets (%(default)s)")
    exclusive = parser.add_mutually_exclusive_group()
    exclusive.add_argument(
        "--check", action="store_true", default=False, help="report available and missing clips; write nothing"
    )
    exclusive.add_argument("--overwrite", action="store_true", default=False, help="replace the prepared data set")
    add("--workers", type=at_least(1), default=os.cpu_count(), help="processes that decode (%(default)s)")
    stored = parser.add_argument_group("what is stored")
    add = stored.add_argument
    add("--height", type=int, help="frame height in pixels (240)")
    add("--width", type=int, help="frame width in pixels (320)")
    add("--quality", type=int, help="JPEG quality, 1 to 100 (90)")
    add("--stride", type=int, help="store every STRIDE-th frame of a video (1)")
    add(
        "--max_failed_fraction",
        type=float,
        help="maximum fraction of clips that may be left out because they cannot be decoded (0.05)",
    )
    official = parser.add_argument_group("public data sets")
    add = official.add_argument
    add("--annotations", help="folder of the official annotation files, if they are not in --source")
    add("--allow_missing", action="store_true", help="prepare the available clips of a partial download")
    lists = parser.add_argument_group("lists in the form of TSN")
    add = lists.add_argument
    add("--train_list", help="training clips: a file of lines 'path label' or 'path num_frames label'")
    add("--validation_list", help="validation clips, in the same format; required with --train_list")
    add("--label_names", help="file of class names; line i names label i")
    folder = parser.add_argument_group("video_folder")
    add = folder.add_argument
    add("--validation_fraction", type=float, help="fraction of every class used for validation, without lists (0.1)")
    add("--split_seed", type=at_least(0), help="seed of the random validation split (0)")
    add(
        "--flip_pairs",
        dest="flip_pair_names",
        nargs="+",
        metavar="CLASS[=CLASS]",
        help="classes that mirroring changes; A=B: mirroring swaps A and B",
    )
    return parser


def _check(path: Path, options: dict[str, object]) -> int:
    from rsa_jax.preparation.datasets import make_builder, make_config
    from rsa_jax.preparation.store import quiet

    with quiet():
        builder = make_builder(path, make_config(path, **options, unpack=False))
        inventory = builder.inventory()
    print(inventory.text(most=sys.maxsize))
    if inventory.problems():
        print("; ".join(inventory.problems()) + ".")
        return 1
    builder.check()
    print("Nothing is missing.")
    return 0


def _prepare(path: Path, name: str, data_dir: str, overwrite: bool, options: dict[str, object]) -> int:
    from rsa_jax.preparation.datasets import make_builder, make_config
    from rsa_jax.preparation.store import prepare

    config = make_config(path, **options)
    prepared = prepare(lambda: make_builder(path, config), path, overwrite=overwrite)
    if not prepared:
        print(f"{name} is already prepared in {path}. With --overwrite it is prepared again.")
        return 0
    print(prepared.inventory().text())
    print(f"Prepared in {path}: provenance in metadata.json, what is missing in report.json. To train on it:")
    print(f"  --config.data.name={name} --config.data.data_dir={data_dir}")
    return 0


def _stop(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare or check a data set. Return the exit status: 0 on success, 130 if interrupted, else 1."""
    args = _parser().parse_args(argv)
    from rsa_jax.preparation.parallel import WorkerDiedError
    from rsa_jax.preparation.store import PreparationError, data_path

    options = {name: value for name, value in vars(args).items() if name not in _TOOL}
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        path = data_path(args.name, args.data_dir)
        if args.check:
            return _check(path, options)
        return _prepare(path, args.name, args.data_dir, args.overwrite, options)
    except (PreparationError, WorkerDiedError, OSError) as error:
        if not is_mistake(error):
            raise
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Run the same command to resume.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
