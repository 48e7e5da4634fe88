"""Draws the kernels that layers compute for a query: in a clip, and in the same clip played backwards.

python -m rsa_jax.tools.visualize (VIDEO | --index N) --workdir DIR [--workdir DIR ...] --out picture.png
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
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from rsa_jax.errors import in_one_line, is_mistake
from rsa_jax.evaluation.chunks import Reading, read_chunks, stored_as
from rsa_jax.evaluation.scores import all_class_names
from rsa_jax.files import printable
from rsa_jax.input_pipeline.augmentation import square_crop, to_pixels
from rsa_jax.logs import setup_logging
from rsa_jax.nn.network import TSNResNet
from rsa_jax.nn.watch import Path as LayerPath
from rsa_jax.nn.watch import layer_name, watch
from rsa_jax.ops.windows import check_position
from rsa_jax.pictures.clips import check_picture
from rsa_jax.pictures.kernel_figure import Panel, draw_kernels
from rsa_jax.precision import with_precision
from rsa_jax.training.checkpoints import read_config, read_dataset
from rsa_jax.training.models import load_model

Position = tuple[int, int, int]

# Fields of `config.data` that networks in one figure must share: they determine what a network sees of a clip.
SHARED_FIELDS = ("num_frames", "image_size", "eval_crop")


@runtime_checkable
class HasKernels(Protocol):
    """A layer whose kernels can be drawn.

    Attributes:
        kernel_size: window size in frames, height and width; None: the whole feature map.
    """

    kernel_size: tuple[int, int, int] | None

    def kernels(self, x: Float[Array, "B T H W C"], position: Position) -> dict[str, Float[Array, "B L t h w"]]:
        """Kernels of the queries at a position, by name. The layer applies their sum."""


def choose_layer(model: TSNResNet, wanted: str | None) -> tuple[LayerPath, HasKernels]:
    """Path and layer by name or number; for None, the middle layer with kernels.

    Raises:
        ValueError: If there is no such layer.
    """
    layers = [(path, layer) for path, layer in nnx.iter_modules(model) if isinstance(layer, HasKernels)]
    if not layers:
        raise ValueError("the network holds no layer whose kernels can be drawn: of RSA or self-attention")
    if wanted is None:
        return layers[len(layers) // 2]
    for number, (path, layer) in enumerate(layers):
        if wanted in (str(number), layer_name(path)):
            return path, layer
    listing = ", ".join(f"{number} ({layer_name(path)})" for number, (path, _) in enumerate(layers))
    raise ValueError(f"--layer: expected one of {listing}, got {wanted!r}")


def clip_and_reverse(
    model: TSNResNet, path: LayerPath, clip: Float[Array, "T S S 3"]
) -> tuple[Float[Array, "2 K"], Float[Array, "2 T H W C"], Float[Array, "2 T H W C"]]:
    """Logits of a clip and of its reverse, and a layer's input and output for both."""
    graph, state = nnx.split(model)

    @jax.jit
    def run(state: nnx.State, clips: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        model: Any = nnx.merge(graph, state)
        model.remat = False  # recorded values cannot leave a rematerialised block
        seen = []
        watch(model, path, lambda x, y: seen.append((x, y)))
        return model(clips), *seen[0]

    return run(state, jnp.stack([clip, clip[::-1]]))


def strongest(output: Float[Array, "T H W C"]) -> Position:
    """Position where the layer's output is largest in norm."""
    norms = np.linalg.norm(np.asarray(output, np.float32), axis=-1)
    frame, row, column = np.unravel_index(norms.argmax(), norms.shape)
    return int(frame), int(row), int(column)


def corresponding(position: Position, map_size: Sequence[int], other_size: Sequence[int]) -> Position:
    """Position in a feature map of another size whose cell holds the centre of the given position's cell."""
    sizes = zip(position, map_size, other_size, strict=True)
    frame, row, column = ((2 * place + 1) * other // (2 * size) for place, size, other in sizes)
    return frame, row, column


def all_kernels(layer: HasKernels, x: Float[Array, "T H W C"], position: Position) -> dict[str, np.ndarray]:
    """Kernels at a position, by name, `L t h w`; if there are several, "total" is their sum."""
    kernels = {name: np.asarray(kernel[0], np.float32) for name, kernel in layer.kernels(x[None], position).items()}
    return kernels | ({"total": np.sum(list(kernels.values()), axis=0)} if len(kernels) > 1 else {})


def make_panels(
    model: TSNResNet,
    path: LayerPath,
    layer: HasKernels,
    clip: Float[Array, "T S S 3"],
    position: Position | None,
    map_size: tuple[int, int, int] | None = None,
) -> tuple[list[Panel], Float[np.ndarray, "2 K"]]:
    """Panels of a clip, and of the same clip and query played backwards.

    Args:
        model: in evaluation mode.
        path: path of the layer.
        layer: the layer.
        clip: normalised clip.
        position: query position in the original clip; None: where the layer's output is largest.
        map_size: size of the feature map that `position` refers to; None: the layer's.

    Returns:
        The two panels, and the class probabilities of both clips.

    Raises:
        ValueError: If the position lies outside the feature map.
    """
    logits, inputs, outputs = clip_and_reverse(model, path, clip)
    frames, height, width = size = inputs.shape[1:4]
    counted_in = map_size or size
    forward = strongest(outputs[0]) if position is None else position
    check_position(forward, counted_in)
    forward = corresponding(forward, counted_in, size)
    backward = (frames - 1 - forward[0], *forward[1:])
    seen = to_pixels(clip)
    panels = [
        Panel(pixels, (frames, height, width), place, layer.kernel_size, all_kernels(layer, x, place))
        for x, pixels, place in zip(inputs, (seen, seen[::-1]), (forward, backward), strict=True)
    ]
    return panels, np.asarray(jax.nn.softmax(logits))


def short_names(workdirs: Sequence[Path]) -> list[str]:
    """Last component of each path; of paths that share it, the shortest suffix that only one of them has."""
    paths = [Path(os.path.abspath(workdir)).parts for workdir in workdirs]

    def name(parts: tuple[str, ...]) -> str:
        suffixes = (parts[-length:] for length in range(1, len(parts) + 1))
        unique = (suffix for suffix in suffixes if sum(other[-len(suffix) :] == suffix for other in paths) == 1)
        return printable(Path(*next(unique, parts)))

    return [name(parts) for parts in paths]


def check_same_clips(workdirs: Sequence[Path], configs: Sequence[ConfigDict]) -> None:
    """Checks that all networks receive the same input for a clip.

    Raises:
        ValueError: If the configurations differ in one of `SHARED_FIELDS`.
    """
    for workdir, config in zip(workdirs[1:], configs[1:], strict=True):
        for field in SHARED_FIELDS:
            expected, found = configs[0].data[field], config.data[field]
            if found != expected:
                raise ValueError(
                    f"data.{field} is {expected} in {workdirs[0]} but {found} in {workdir}; "
                    "networks in one picture must see the same clip"
                )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "rsa_jax.tools.visualize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, action="append", help="of a run; repeat it to compare networks")
    add("--out", type=Path, required=True, help="picture to write; the extension says the format")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("video", nargs="?", metavar="VIDEO", type=Path, help="file or folder of frames")
    source.add_argument("--index", type=int, help="of a clip in the evaluation split of the first workdir")
    add("--layer", help="name or number, from 0, of a layer with kernels (the middle one of each network)")
    add("--position", type=_position, help="FRAME,ROW,COLUMN of the query in the layer's feature map (largest output)")
    add("--checkpoint", default="best", help="best, latest or a step, of each workdir (%(default)s)")
    add("--data_dir", help="where the prepared data set lies now, if it has moved")
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
    """Runs the network of a workdir. Its query is the one of `first`, the first network's panel, if given."""
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
    """Draws the requested figure.

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
    """Draws the figure."""
    args = _parse(argv)
    setup_logging()
    with in_one_line(RuntimeError):
        check_picture(args.out)
        print(f"{draw_clip(args)} drawn in {args.out}")


if __name__ == "__main__":
    main()
