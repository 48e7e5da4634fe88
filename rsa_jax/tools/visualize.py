"""Draws the kernels that a layer makes for a query: in a clip, and in the same clip played backwards.

python -m rsa_jax.tools.visualize --workdir DIR (--video FILE | --index N) --out picture.png
    [--layer NAME|NUMBER] [--position FRAME,ROW,COLUMN] [--checkpoint best]

The query is red and its window yellow. Below are, for some of the queries of that position, the slices over time of
the basic kernel, of the relational one and of their sum (of self-attention, its weights), all in the colours of one
scale. Below a kernel's name is the largest absolute value that is drawn, and played backwards its similarity, cosine
over all queries, to the kernel of the clip as it is, place by place of the window.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from rsa_jax.data.augment import square_crop, to_pixels
from rsa_jax.data.segments import Reading, read_video, stored_as
from rsa_jax.files import printable
from rsa_jax.logs import setup_logging
from rsa_jax.network import TSNResNet
from rsa_jax.tools.kernel_figure import Panel, draw_kernels
from rsa_jax.tools.pictures import check_picture
from rsa_jax.tools.watch import Path as LayerPath
from rsa_jax.tools.watch import layer_name, watch
from rsa_jax.training.checkpoints import read_config, read_dataset
from rsa_jax.training.models import load_model
from rsa_jax.training.scores import all_class_names
from rsa_jax.transforms.windows import check_position

Position = tuple[int, int, int]


@runtime_checkable
class HasKernels(Protocol):
    """A layer whose kernels can be drawn.

    Attributes:
        kernel_size: its window in frames, height, width; None: the whole map.
    """

    kernel_size: tuple[int, int, int] | None

    def kernels(self, x: Float[Array, "B T H W C"], position: Position) -> dict[str, Float[Array, "B L t h w"]]:
        """The kernels of the queries of a position, by name. What is applied is their sum."""


def choose_layer(model: TSNResNet, wanted: str | None) -> tuple[LayerPath, HasKernels]:
    """A layer by name or number, and its path; of None, the middle one of those that make kernels.

    Raises:
        ValueError: there is no such layer.
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
    """Logits of a clip and of its reverse, and what goes into and comes out of a layer for both."""
    graph, state = nnx.split(model)

    @jax.jit
    def run(state: nnx.State, clips: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        model: Any = nnx.merge(graph, state)
        model.remat = False  # what is noted in a block that may be recomputed cannot leave it
        seen = []
        watch(model, path, lambda x, y: seen.append((x, y)))
        return model(clips), *seen[0]

    return run(state, jnp.stack([clip, clip[::-1]]))


def strongest(output: Float[Array, "T H W C"]) -> Position:
    """Where the layer's output is largest in norm."""
    norms = np.linalg.norm(np.asarray(output, np.float32), axis=-1)
    frame, row, column = np.unravel_index(norms.argmax(), norms.shape)
    return int(frame), int(row), int(column)


def all_kernels(layer: HasKernels, x: Float[Array, "T H W C"], position: Position) -> dict[str, np.ndarray]:
    """The kernels of a position, `L t h w`, and if there are several, "total", their sum."""
    kernels = {name: np.asarray(kernel[0], np.float32) for name, kernel in layer.kernels(x[None], position).items()}
    return kernels | ({"total": np.sum(list(kernels.values()), axis=0)} if len(kernels) > 1 else {})


def make_panels(
    model: TSNResNet, path: LayerPath, layer: HasKernels, clip: Float[Array, "T S S 3"], position: Position | None
) -> tuple[list[Panel], Float[np.ndarray, "2 K"]]:
    """What to draw of a clip, and of the same clip and query played backwards.

    Args:
        model: in evaluation mode.
        path: of the layer.
        layer: itself.
        clip: normalised.
        position: of the query in the clip as it is; None: where the layer's output is largest.

    Returns:
        A panel each, and the probabilities of all classes.

    Raises:
        ValueError: the position is not in the layer's map.
    """
    logits, inputs, outputs = clip_and_reverse(model, path, clip)
    frames, height, width = inputs.shape[1:4]
    forward = strongest(outputs[0]) if position is None else position
    check_position(forward, (frames, height, width))
    backward = (frames - 1 - forward[0], *forward[1:])
    seen = to_pixels(clip)
    panels = [
        Panel(pixels, (frames, height, width), place, layer.kernel_size, all_kernels(layer, x, place))
        for x, pixels, place in zip(inputs, (seen, seen[::-1]), (forward, backward), strict=True)
    ]
    return panels, np.asarray(jax.nn.softmax(logits))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "rsa_jax.tools.visualize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="of a run")
    add("--out", type=Path, required=True, help="picture to write; the extension says the format")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", type=Path, help="file or folder of frames")
    source.add_argument("--index", type=int, help="of a clip in the evaluation split")
    add("--layer", help="name or number, from 0, of a layer that makes kernels (the middle one)")
    add("--position", type=_position, help="of the query in the layer's map: FRAME,ROW,COLUMN (strongest response)")
    add("--checkpoint", default="best", help="best, latest or a step (%(default)s)")
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
    """Name and frames, as stored, of the clip that the arguments mean."""
    if args.video:
        reading = Reading(config.data.num_frames, **stored_as(dataset))
        return printable(Path(args.video.name)), read_video(args.video, reading).segments[0].frames()
    from rsa_jax.data import pipeline  # imports TensorFlow, which a video does not need

    batch = pipeline.read_clips(config.data, config.data.eval_split, [args.index])
    return batch["id"][0].decode(), batch["frames"][0]


def draw_clip(args: argparse.Namespace) -> str:
    """Draws what the arguments say, and says what that is.

    Raises:
        ValueError: the workdir, the layer or the position is not there, or the video cannot be decoded.
        PreparationError: the data set is not there, or damaged.
    """
    config, dataset = read_config(args.workdir), read_dataset(args.workdir)
    if args.data_dir:
        config.data.data_dir = args.data_dir
    name, frames = _read_clip(args, config, dataset)
    model = load_model(args.workdir, args.checkpoint)
    path, layer = choose_layer(model, args.layer)
    size = {"image_size": config.data.image_size, "eval_crop": config.data.eval_crop}
    clip = square_crop(jnp.asarray(frames[None]), 1, **size)[0]
    panels, probabilities = make_panels(model, path, layer, clip, args.position)
    class_names = all_class_names(dataset["class_names"], config.model.num_classes)
    short = name if len(name) <= 60 else f"{name[:57]}..."
    titles = [
        f"{short}{backwards}: {class_names[shares.argmax()]} {shares.max():.1%}     query: frame {panel.position[0]}, "
        f"row {panel.position[1]}, column {panel.position[2]} of {layer_name(path)}"
        for backwards, shares, panel in zip(("", " played backwards"), probabilities, panels, strict=True)
    ]
    draw_kernels(titles, panels, args.out)
    return f"Kernels of {layer_name(path)} for {name}"


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the picture."""
    args = _parse(argv)
    setup_logging()
    try:
        check_picture(args.out)
        print(f"{draw_clip(args)} drawn in {args.out}")
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
