"""Looks into a network: what goes through its layers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

# Where a layer stands in a network: names of attributes, and numbers in lists, as `nnx.iter_modules` gives them.
Path = Sequence[Any]


class _Recorder(nnx.Module):
    """Stands in the place of a layer, and notes what goes through it."""

    def __init__(self, layer: nnx.Module, note: Callable[[jax.Array, jax.Array], None]):
        self.layer, self.note = layer, note

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layer(x)
        self.note(x, y)
        return y

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "layer"), name)


def watch(model: nnx.Module, path: Path, note: Callable[[jax.Array, jax.Array], None]) -> None:
    """Has every call of a layer noted, with its input and its output.

    Args:
        model: is changed. Blocks that are recomputed (`model.remat`) call their layers twice.
        path: of the layer.
        note: takes input and output.
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
    """The path with dots between its parts."""
    return ".".join(map(str, path))
