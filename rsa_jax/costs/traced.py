"""Cost of a network by layer, for one clip: parameters, MACs, activations. The network is traced, not run.

MACs are counted as in the paper's tables: convolutions, transforms and the classifier count; BatchNorm, activations
and pooling do not.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from rsa_jax.nn.layers import BatchNorm
from rsa_jax.nn.network import TSNResNet, create_model
from rsa_jax.nn.watch import layer_name, watch
from rsa_jax.training.state import PyTree, define_model, merge_model, split_model


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Cost of one layer for one clip.

    Attributes:
        name: name of the layer in the network.
        kind: class of the layer.
        input: shape of the input, `B T H W C` or `B T C`.
        output: shape and dtype of the output.
        parameters: number of parameters.
        macs: number of MACs.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    output: jax.ShapeDtypeStruct
    parameters: int
    macs: int

    @property
    def output_bytes(self) -> int:
        """Size of the output in bytes."""
        return self.output.size * self.output.dtype.itemsize


class NetworkCost(NamedTuple):
    """Cost of a network for one clip: millions of parameters, billions of MACs."""

    parameters: float
    macs: float


def layer_costs(config: ConfigDict) -> list[LayerCost]:
    """Cost of every layer that has parameters, in the order of computation.

    Args:
        config: configuration of a run, with `model.num_classes` set.

    Raises:
        ValueError: If a field of the configuration is invalid.
    """
    costs: list[LayerCost] = []

    def trace(clip: jax.Array) -> jax.Array:
        # Recomputing a block would trace it twice.
        model = create_model(_changed(config.model, remat=False), rngs=nnx.Rngs(0))
        model.eval()
        for path, layer in list(layers_with_parameters(model)):
            watch(model, path, functools.partial(_note, costs, path, layer))
        return model(clip)

    jax.eval_shape(trace, abstract_clip(config))
    return costs


def network_cost(layers: Sequence[LayerCost]) -> NetworkCost:
    """Sum of the costs of all layers."""
    return NetworkCost(sum(layer.parameters for layer in layers) / 1e6, sum(layer.macs for layer in layers) / 1e9)


def saved_bytes(config: ConfigDict, device: jax.Device) -> int:
    """Bytes of one clip's residuals that JAX keeps for the backward pass of a training step on a device.

    XLA may recompute some of them instead. Parameters do not count.
    """
    model = _changed(config.model, batch_norm_clips=0)
    graph = define_model(model, device).train

    def forward(params: PyTree, batch_stats: PyTree, clip: jax.Array) -> Any:
        def logits(params: PyTree) -> jax.Array:
            return merge_model(graph, params, batch_stats)(clip, rngs=nnx.Rngs(0))

        return jax.vjp(logits, params)[1]

    params, batch_stats = jax.eval_shape(lambda: split_model(create_model(model, rngs=nnx.Rngs(0))))
    kept = jax.tree.leaves(jax.eval_shape(forward, params, batch_stats, abstract_clip(config)))
    parameters = [leaf.shape for leaf in jax.tree.leaves(params)]
    total = 0
    for leaf in kept:
        if leaf.shape in parameters:
            parameters.remove(leaf.shape)
        else:
            total += leaf.size * leaf.dtype.itemsize
    return total


def layers_with_parameters(model: TSNResNet) -> Iterator[tuple[tuple[Any, ...], nnx.Module]]:
    """Paths of the layers that have parameters, and the layers. A transform with all its submodules is one layer."""
    layers = {
        path: layer
        for path, layer in nnx.iter_modules(model)
        if hasattr(layer, "macs") or isinstance(layer, BatchNorm) or path == ("fc",)
    }
    for path, layer in layers.items():
        if not any(path[:length] in layers for length in range(len(path))):
            yield path, layer


def abstract_clip(config: ConfigDict) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the network's input for one clip, `1 T S S 3`."""
    side = config.data.image_size
    return jax.ShapeDtypeStruct((1, config.data.num_frames, side, side, 3), jnp.dtype(config.model.dtype))


def _note(costs: list[LayerCost], path: Sequence[Any], layer: Any, x: jax.Array, y: jax.Array) -> None:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
    if isinstance(layer, nnx.Linear):
        macs = x.shape[0] * x.shape[1] * layer.kernel.size
    else:
        macs = 0 if isinstance(layer, BatchNorm) else layer.macs(x.shape)
    output = jax.ShapeDtypeStruct(y.shape, y.dtype)
    costs.append(LayerCost(layer_name(path), type(layer).__name__, x.shape, output, parameters, macs))


def _changed(model: ConfigDict, **fields: Any) -> ConfigDict:
    model = model.copy_and_resolve_references()
    model.update(fields)
    return model
