"""Kernels that a layer computes for a query in a clip and in the same clip played backwards, as panels of a figure."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rsa_jax.input_pipeline.augmentation import to_pixels
from rsa_jax.nn.network import TSNResNet
from rsa_jax.nn.protocols import HasKernels
from rsa_jax.nn.watch import Path, layer_name, watch
from rsa_jax.ops.windows import check_position
from rsa_jax.pictures.kernel_figure import Panel

Position = tuple[int, int, int]


def choose_layer(model: TSNResNet, wanted: str | None) -> tuple[Path, HasKernels]:
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
    model: TSNResNet, path: Path, clip: Float[Array, "T S S 3"]
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
    path: Path,
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
