"""Draw the kernels that layers compute for a query: in a clip, and in the same clip played backwards.

python -m rsa_jax visualize (VIDEO | --index N) --workdir DIR [--workdir DIR ...] --out image.png
    [--layer NAME|NUMBER] [--position FRAME,ROW,COLUMN] [--checkpoint best]

The query is red and its window yellow. The rows below show, for some of the queries at that position, the temporal
slices of the basic kernel, of the relational kernel and of their sum; for self-attention, those of its weights. Each
row has a colour scale of its own, for both playing directions; the colour bar at its right shows the limits. Below a
kernel's name is the largest absolute value drawn. Played backwards, its cosine similarity to the kernel of the
original clip follows, over all queries and position by position of the window.

Several workdirs compare their networks on the same clip and the same query. The frames show the query and the window
of the first network. Where another network's feature map has another size, its query is the corresponding one.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from rsa_jax.errors import in_one_line, is_mistake
from rsa_jax.evaluation.chunks import Reading, read_chunks, stored_as
from rsa_jax.evaluation.scores import all_class_names
from rsa_jax.files import printable
from rsa_jax.flags import Parser, folder_or_url
from rsa_jax.input_pipeline.augmentation import square_crop
from rsa_jax.logs import setup_logging
from rsa_jax.nn.watch import layer_name
from rsa_jax.pictures.clip_figure import check_picture
from rsa_jax.pictures.kernel_figure import Panel, draw_kernels
from rsa_jax.pictures.kernel_panels import Position, choose_layer, make_panels
from rsa_jax.precision import with_precision
from rsa_jax.training.models import load_model
from rsa_jax.training.workdir import read_config, read_dataset

# Fields of `config.data` that networks in one figure must share: they determine what a network sees of a clip.
SHARED_FIELDS = ("num_frames", "image_size", "eval_crop")


def short_names(workdirs: Sequence[Path]) -> list[str]:
    """Last component of each path; of paths that share it, the shortest suffix that only one of them has."""
    paths = [Path(os.path.abspath(workdir)).parts for workdir in workdirs]

    def name(parts: tuple[str, ...]) -> str:
        suffixes = (parts[-length:] for length in range(1, len(parts) + 1))
        unique = (suffix for suffix in suffixes if sum(other[-len(suffix) :] == suffix for other in paths) == 1)
        return printable(Path(*next(unique, parts)))

    return [name(parts) for parts in paths]


def check_same_clips(workdirs: Sequence[Path], configs: Sequence[ConfigDict]) -> None:
    """Check that all networks receive the same input for a clip.

    Raises:
        ValueError: If the configurations differ in one of `SHARED_FIELDS`.
    """
    for workdir, config in zip(workdirs[1:], configs[1:], strict=True):
        for field in SHARED_FIELDS:
            expected, found = configs[0].data[field], config.data[field]
            if found != expected:
                raise ValueError(
                    f"data.{field} is {expected} in {workdirs[0]} but {found} in {workdir}; "
                    "networks in one figure must see the same clip"
                )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("visualize", __doc__)
    add = parser.add_argument
    add("--workdir", type=folder_or_url, required=True, action="append", help="of a run; repeat it to compare networks")
    add("--out", type=Path, required=True, help="image to write; the extension determines the format")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("video", nargs="?", metavar="VIDEO", type=Path, help="file or folder of frames")
    source.add_argument("--index", type=int, help="of a clip in the evaluation split of the first workdir")
    add("--layer", help="name or number, from 0, of a layer with kernels (the middle one of each network)")
    add("--position", type=_position, help="FRAME,ROW,COLUMN of the query in the layer's feature map (largest output)")
    add("--checkpoint", default="best", help="best, latest or a step, of each workdir (%(default)s)")
    add("--data_dir", help="folder of prepared data sets, if it has moved")
    return parser.parse_args(argv)


def _position(text: str) -> Position:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected FRAME,ROW,COLUMN, three numbers from 0, got {text!r}")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _read_clip(
    args: argparse.Namespace, config: ConfigDict, dataset: dict[str, Any]
) -> tuple[str, UInt8[np.ndarray, "T H W 3"]]:
    """Name of the requested clip, and its frames as stored."""
    if args.video is not None:
        reading = Reading(config.data.num_frames, config.data.sampling, **stored_as(dataset))
        return printable(Path(args.video.name)), read_chunks(args.video, reading)[0].frames()
    from rsa_jax.input_pipeline import pipeline  # imports TensorFlow, which a video does not need

    batch = pipeline.read_clips(config.data, config.data.eval_split, [args.index])
    return batch["id"][0].decode(), batch["frames"][0]


class _Seen(NamedTuple):
    """Result of one network for a clip and its reverse.

    Attributes:
        layer: name of the layer.
        predictions: class and probability, as text.
        panels: panels with the layer's kernels.
    """

    layer: str
    predictions: list[str]
    panels: list[Panel]

    def titles(self, clip: str) -> list[str]:
        """Title line of each panel."""
        by = f", {self.panels[0].network}" if self.panels[0].network else ""
        return [
            f"{clip}{backwards}{by}: {prediction}     query: frame {panel.position[0]}, row {panel.position[1]}, "
            f"column {panel.position[2]} of {self.layer}"
            for backwards, prediction, panel in zip(
                ("", " played backwards"), self.predictions, self.panels, strict=True
            )
        ]


def _see(
    args: argparse.Namespace, workdir: Path, network: str, clip: Float[Array, "T S S 3"], first: Panel | None
) -> _Seen:
    """Run the network of a workdir. Its query is the one of `first`, the first network's panel, if given."""
    model = load_model(workdir, args.checkpoint)
    query = (first.position, first.map_size) if first else (args.position, None)
    try:
        path, layer = choose_layer(model, args.layer)
        panels, probabilities = make_panels(model, path, layer, clip, *query)
    except ValueError as error:
        if not is_mistake(error):
            raise
        raise ValueError(f"{workdir}: {error}") from error
    names = all_class_names(read_dataset(workdir)["class_names"], probabilities.shape[1])
    predictions = [f"{names[row.argmax()]} {row.max():.1%}" for row in probabilities]
    return _Seen(layer_name(path), predictions, [panel._replace(network=network) for panel in panels])


def draw_clip(args: argparse.Namespace) -> str:
    """Draw the requested figure.

    Returns:
        A description of the figure.

    Raises:
        ValueError: If a workdir, the layer or the position does not exist, the workdirs' networks see different clips,
            or the video cannot be decoded.
        PreparationError: If the data set is missing or damaged.
    """
    configs = [read_config(workdir) for workdir in args.workdir]
    check_same_clips(args.workdir, configs)
    config = configs[0]
    if args.data_dir:
        config.data.data_dir = args.data_dir
    name, frames = _read_clip(args, config, read_dataset(args.workdir[0]))
    size = {"image_size": config.data.image_size, "eval_crop": config.data.eval_crop}
    clip = square_crop(jnp.asarray(frames[None]), 1, **size)[0]
    networks = short_names(args.workdir) if len(args.workdir) > 1 else [""]
    seen: list[_Seen] = []
    for workdir, network, its_config in zip(args.workdir, networks, configs, strict=True):
        see = with_precision(_see, its_config.matmul_precision)
        seen.append(see(args, workdir, network, clip, seen[0].panels[0] if seen else None))
    titles = ["\n".join(lines) for lines in zip(*(one.titles(name) for one in seen), strict=True)]
    first, *further = (one.panels for one in seen)
    draw_kernels(titles, first, args.out, further)
    layers = (one.layer + (f" in {network}" if network else "") for one, network in zip(seen, networks, strict=True))
    return f"Kernels of {', '.join(layers)} for {name}"


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the figure."""
    args = _parse(argv)
    setup_logging()
    with in_one_line(RuntimeError):
        check_picture(args.out)
        print(f"{draw_clip(args)} drawn in {args.out}")


if __name__ == "__main__":
    main()
