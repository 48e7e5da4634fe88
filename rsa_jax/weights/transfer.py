"""Transfer of weights between networks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flax import nnx

from rsa_jax.nn.layers import SpatialConv
from rsa_jax.nn.network import TSNResNet

# Stage and block.
Place = tuple[int, int]
# Attribute names and list indices that lead to a module or a variable.
Path = tuple[Any, ...]


def transform_blocks(model: TSNResNet) -> list[Place]:
    """Blocks whose second convolution is replaced by a transform with different weights."""
    return [place for place, layer in _layers(model) if not isinstance(layer, SpatialConv)]


def differing_blocks(model: TSNResNet, other: TSNResNet) -> list[Place]:
    """Blocks of `model` whose transform weights differ in name or shape from those of the other network."""
    shapes = {place: _shapes(layer) for place, layer in _layers(other)}
    return [place for place, layer in _layers(model) if shapes.get(place, _shapes(layer)) != _shapes(layer)]


def copy_weights(model: TSNResNet, source: TSNResNet, *, skip: list[Place], classifier: bool) -> None:
    """Copy parameters and running statistics from one network into another, in place.

    Args:
        model: network to change.
        source: network to copy from.
        skip: blocks that keep their weights.
        classifier: whether to copy the classifier.

    Raises:
        ValueError: If the networks differ anywhere else; all differences are listed, and nothing is copied.
    """
    skipped = [("stages", *place) for place in skip] + ([] if classifier else [("fc",)])
    target, given = (
        {path: variable for path, variable in _variables(network) if not _starts(path, skipped)}
        for network in (model, source)
    )
    problems = [f"missing: {_name(path)} {target[path].shape}" for path in target if path not in given]
    problems += [f"unknown: {_name(path)} {given[path].shape}" for path in given if path not in target]
    problems += [
        f"wrong shape: {_name(path)}: expected {variable.shape}, got {given[path].shape}"
        for path, variable in target.items()
        if path in given and given[path].shape != variable.shape
    ]
    if problems:
        raise ValueError("the weights do not fit the network:\n  " + "\n  ".join(problems))
    for path, variable in target.items():
        variable[...] = given[path][...].astype(variable.dtype)


def named_weights(model: nnx.Module) -> dict[str, np.ndarray]:
    """Parameters and running statistics by dotted name."""
    return {_name(path): np.asarray(variable[...]) for path, variable in _variables(model)}


def _shapes(layer: nnx.Module) -> dict[Path, tuple[int, ...]]:
    return {path: variable.shape for path, variable in _variables(layer)}


def _layers(model: TSNResNet) -> Iterator[tuple[Place, Any]]:
    for stage, blocks in enumerate(model.stages):
        for index, block in enumerate(blocks):
            yield (stage, index), block.conv2


def _variables(model: nnx.Module) -> list[tuple[Path, nnx.Variable[Any]]]:
    return [*nnx.to_flat_state(nnx.state(model, nnx.Param)), *nnx.to_flat_state(nnx.state(model, nnx.BatchStat))]


def _starts(path: Path, prefixes: Sequence[Path]) -> bool:
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


def _name(path: Path) -> str:
    return ".".join(map(str, path))
