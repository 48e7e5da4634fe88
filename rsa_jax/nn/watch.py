"""Recording of the inputs and outputs of a network's layers.

`nnx.capture` records outputs only, and not every supported Flax has it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

# Path of a layer in a network: attribute names and list indices, as `nnx.iter_modules` yields them.
Path = Sequence[Any]


class _Recorder(nnx.Module):
    """Stand-in for a layer that passes the layer's input and output to `note`."""

    def __init__(self, layer: nnx.Module, note: Callable[[jax.Array, jax.Array], None]):
        self.layer, self.note = layer, note

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layer(x)
        self.note(x, y)
        return y

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "layer"), name)


def watch(model: nnx.Module, path: Path, note: Callable[[jax.Array, jax.Array], None]) -> None:
    """Call `note` with the input and output of every call of a layer.

    Args:
        model: network, changed in place. Rematerialised blocks (`model.remat`) call their layers twice, and arrays
            recorded there cannot leave them.
        path: path of the layer.
        note: function of the input and the output.
    """
    *parents, name = path
    parent: Any = model
    for step in parents:
        parent = parent[step] if isinstance(step, int) else getattr(parent, step)
    if isinstance(name, int):
        parent[name] = _Recorder(parent[name], note)
    else:
        setattr(parent, name, _Recorder(getattr(parent, name), note))


def layer_name(path: Path) -> str:
    """Dotted name of a path."""
    return ".".join(map(str, path))
