"""Prepares a data set: decodes videos and stores their frames for training.

python -m rsa_jax.tools.prepare video_folder/my_videos --source DIR [--data_dir DIR]
"""

# Worker processes import this file, too: TensorFlow stays out of them by being imported in the functions.
import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsa_jax.data.builder import ClipBuilder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("rsa_jax.tools.prepare", description=__doc__)
    add = parser.add_argument
    add("name", help="video_folder/NAME_OF_YOUR_CHOICE, or motion")
    add("--source", help="folder of the videos: CLASS_NAME/CLIP, or train/ and validation/ with such folders")
    add("--data_dir", default="~/tensorflow_datasets", help="where prepared data sets lie (%(default)s)")
    add("--height", type=int, default=240, help="of the stored frames in pixels (%(default)s)")
    add("--width", type=int, default=320, help="of the stored frames in pixels (%(default)s)")
    add("--quality", type=int, default=90, help="of the JPEG frames, 1 to 100 (%(default)s)")
    add("--train_list", help="list file of lines 'path label' or 'path num_frames label'; goes with")
    add("--validation_list", help="... the list of the validation clips")
    add("--label_names", help="file of class names, line i that of label i; for lists")
    add("--validation_fraction", type=float, default=0.1, help="of every class, without lists (%(default)s)")
    add("--split_seed", type=int, default=0, help="of that choice (%(default)s)")
    add("--directional", nargs="+", default=(), help="classes that a mirror turns into others: never flipped")
    add("--max_failed_share", type=float, default=0.05, help="of clips that may be left out (%(default)s)")
    add("--workers", type=int, default=os.cpu_count(), help="processes that decode (%(default)s)")
    add("--overwrite", action="store_true", help="remove the prepared data set first")
    return parser


def _builder(args: argparse.Namespace, path: pathlib.Path) -> Callable[[], "ClipBuilder"]:
    from rsa_jax.data.builder import PreparationError
    from rsa_jax.data.motion import motion_builder
    from rsa_jax.data.video_folder import VideoFolder, VideoFolderConfig

    name = path.parts[-3]
    if name == "motion":
        return lambda: motion_builder(path)
    if name != "video_folder":
        raise PreparationError(f"Unknown data set {args.name!r}; expected video_folder/NAME or motion.")
    if not args.source:
        raise PreparationError("video_folder needs --source, the folder of the videos.")
    not_fields = ("name", "data_dir", "overwrite", "directional")
    fields = {key: value for key, value in vars(args).items() if key not in not_fields}
    config = VideoFolderConfig(name=path.parent.name, directional_names=args.directional, **fields)
    return lambda: VideoFolder(data_dir=path.parents[2], config=config)


def _print_left_out(left_out: Sequence[dict[str, str]]) -> None:
    for clip in left_out:
        print(f"Left out of {clip['split']}: {clip['reason']}")
    if left_out:
        print(f"{len(left_out)} clips left out.")


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares a data set and reports. Returns the exit status: 1 if there is no data set in the end."""
    args = _parser().parse_args(argv)
    from rsa_jax.data.builder import PreparationError, data_path, prepare
    from rsa_jax.data.parallel import WorkerDiedError

    try:
        path = data_path(args.name, args.data_dir)
        prepared = prepare(_builder(args, path), path, overwrite=args.overwrite)
    except (PreparationError, WorkerDiedError, OSError) as error:
        _print_left_out(getattr(error, "left_out", ()))
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if not prepared:
        print(f"{args.name} is already prepared in {path}. With --overwrite it is prepared again.")
        return 0
    _print_left_out(prepared.left_out)
    for name, split in prepared.info.splits.items():
        print(f"{name}: {split.num_examples} clips of {len(prepared.class_names)} classes")
    print(f"Prepared in {path}, with provenance in metadata.json. To train on it:")
    print(f"  --config.data.name={args.name} --config.data.data_dir={args.data_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
