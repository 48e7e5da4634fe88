"""Conversion between models and PyTorch state dicts of the published code and torchvision."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from rsa_jax.nn import RSA
from rsa_jax.nn.layers import BatchNorm, SpatialConv
from rsa_jax.nn.network import TSNResNet
from rsa_jax.weights.transfer import transform_blocks

StateDict = dict[str, np.ndarray]

# Prefixes of modules that hold the network: DataParallel, Lightning, OpenMMLab (whose classifier is head.fc), compile.
_WRAPPERS = re.compile(r"(?:(?:module|model|backbone|net|_orig_mod)\.)*(?:head\.(?=fc\.))?")

# PyTorch's batch count of each BatchNorm, which it does not use.
COUNTER = "num_batches_tracked"


class Entry(NamedTuple):
    """Name and axis layout of a variable in a PyTorch state dict."""

    name: str
    shape: tuple[int, ...]
    variable: nnx.Variable[Any]
    # The state dict's array, reshaped to `view` and transposed by `order`, is the variable.
    view: tuple[int, ...]
    order: tuple[int, ...]


def load_torch(model: nnx.Module, state_dict: Mapping[str, Any], *, classifier: bool = True) -> None:
    """Load a state dict into a network or a single RSA layer, in place.

    From the published code, all weights are loaded. From a torchvision ResNet, all weights are loaded except those of
    the classifier and of blocks with a transform, which keep their initial weights (supplement, implementation
    details). A temporal shift keeps the block's own convolution, which is loaded.

    Args:
        model: a network of `create_model` or an `RSA`.
        state_dict: numpy arrays or torch tensors by name. Prefixes of wrappers ("module.", ...) are removed.
        classifier: whether to load the classifier; False for another set of classes.

    Raises:
        ValueError: If names are missing, unknown or duplicated, shapes differ, or values are not real numbers. All
            are listed, and nothing is loaded. Also if the model holds a transform that the published code does not
            have; such a network takes only torchvision weights.
    """
    arrays = without_counters(as_arrays(state_dict))
    if not (is_torchvision(arrays) and isinstance(model, TSNResNet)):
        check_published(model)
    entries = list(torch_entries(model))
    if not classifier:
        entries = [entry for entry in entries if not entry.name.startswith("new_fc.")]
        arrays = {name: array for name, array in arrays.items() if not name.startswith("new_fc.")}
    if is_torchvision(arrays) and isinstance(model, TSNResNet):
        entries, arrays = _torchvision(model, entries, arrays)
    _check_fit(entries, arrays)
    # In the network's types: a larger type has values that are infinite there.
    check_finite({entry.name: arrays[entry.name].astype(entry.variable.dtype) for entry in entries})
    for entry in entries:
        variable = entry.variable
        array = arrays[entry.name].reshape(entry.view).transpose(entry.order).reshape(variable.shape)
        # Copy: JAX may otherwise share memory with a tensor that PyTorch later changes.
        variable[...] = jnp.array(array, variable.dtype, copy=True)


def to_torch(model: nnx.Module) -> StateDict:
    """State dict of a network or a single RSA layer in the published code's layout.

    The round trip with `load_torch` is bit-exact in both directions, except that PyTorch's unused batch counts
    (`num_batches_tracked`) become 0.

    Raises:
        ValueError: If the model holds a transform that the published code does not have.
    """
    check_published(model)
    state_dict: StateDict = {}
    for entry in torch_entries(model):
        array = np.asarray(entry.variable[...]).reshape([entry.view[axis] for axis in entry.order])
        state_dict[entry.name] = array.transpose(np.argsort(entry.order)).reshape(entry.shape)
        if entry.name.endswith("running_var"):
            state_dict[entry.name.removesuffix("running_var") + COUNTER] = np.zeros((), np.int64)
    return state_dict


def check_published(model: nnx.Module) -> None:
    """Check that the published code has every transform of the model.

    Raises:
        ValueError: If it lacks any; these are listed with their differences.
    """
    layers: dict[str, Any] = {"layer": model}
    if isinstance(model, TSNResNet):
        layers = {
            f"stage {stage}, block {index}": block.conv2
            for stage, blocks in enumerate(model.stages)
            for index, block in enumerate(blocks)
        }
    problems = [f"  {place}: {problem}" for place, layer in layers.items() if (problem := _unpublished(layer))]
    if problems:
        raise ValueError(
            "the published code, whose parameter names are used here, does not have these transforms:\n"
            + "\n".join(problems)
        )


def _unpublished(layer: Any) -> str:
    """Type or settings of a transform that the published code does not have; empty if it has them."""
    if type(layer) is SpatialConv:
        return ""
    if not isinstance(layer, RSA):
        return type(layer).__name__
    settings = []
    if layer.normalization != "l2":
        settings.append(f"normalization {layer.normalization!r}")
    if not layer.decomposed:
        settings.append("decomposed False")
    if layer.H1 is not None and layer.relation_groups != layer.projection.kernel.shape[0] // layer.num_queries:
        settings.append(f"relation_groups {layer.relation_groups}")
    return f"RSA with {', '.join(settings)}" if settings else ""


def plain_name(name: str) -> str:
    """Name of a parameter without the prefixes of modules around the network: "module.", "model.", "backbone."."""
    return _WRAPPERS.sub("", name, count=1)


def as_arrays(state_dict: Mapping[str, Any]) -> StateDict:
    """NumPy arrays by `plain_name`, from arrays or torch tensors of any dtype and device.

    Raises:
        ValueError: If two names are equal without their prefixes, or a value is not an array.
    """
    arrays: StateDict = {}
    for name, value in state_dict.items():
        plain = plain_name(name)
        if plain in arrays:
            raise ValueError(f"duplicate name: {plain}, with several prefixes, one of them in {name}")
        if getattr(value, "is_meta", False):
            raise ValueError(
                f"{name}: has a shape but no values (PyTorch's meta device): save a model with its weights"
            )
        try:
            if hasattr(value, "detach"):
                value = value.detach().cpu()
                value = value.float() if str(value.dtype) == "torch.bfloat16" else value
            arrays[plain] = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name}: cannot be converted to an array: {error}") from error
    return arrays


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Check that all values are finite.

    Raises:
        ValueError: If any are NaN or infinite. The first tensors are named, and the values counted.
    """
    floating = {name: array for name, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.inexact)}
    counts = {name: int(np.sum(~np.isfinite(array))) for name, array in floating.items()}
    affected = [name for name, count in counts.items() if count]
    if affected:
        first = ", ".join(f"{name} ({counts[name]:,} of {arrays[name].size:,})" for name in affected[:3])
        raise ValueError(
            f"NaN or infinite: {sum(counts.values()):,} of {sum(array.size for array in arrays.values()):,} values, "
            f"in {len(affected)} of {len(arrays)} tensors: {first}"
            f"{', ...' if len(affected) > 3 else ''}; training diverged, or the file is damaged"
        )


def without_counters(arrays: StateDict) -> StateDict:
    """State dict without the batch counts that PyTorch keeps beside each running variance."""
    return {
        name: array
        for name, array in arrays.items()
        if not (name.endswith(COUNTER) and name.removesuffix(COUNTER) + "running_var" in arrays)
    }


def is_torchvision(names: Mapping[str, Any]) -> bool:
    """Whether the names are those of a torchvision ResNet."""
    return "conv1.weight" in names and "layer1.0.conv1.weight" in names


def torch_entries(model: nnx.Module) -> Iterator[Entry]:
    """Entries of the published code's state dict for this model."""
    for path, module in nnx.iter_modules(model):
        prefix = _torch_prefix(path)
        if isinstance(module, SpatialConv):
            size, _, inputs, outputs = module.kernel.shape
            shape = (outputs, inputs, 1, size, size)
            yield Entry(prefix + "weight", shape, module.kernel, (outputs, inputs, size, size), (2, 3, 1, 0))
        elif isinstance(module, BatchNorm):
            names = {
                "weight": module.scale,
                "bias": module.bias,
                "running_mean": module.mean,
                "running_var": module.var,
            }
            for name, variable in names.items():
                yield Entry(prefix + name, variable.shape, variable, variable.shape, (0,))
        elif isinstance(module, RSA):
            yield from _rsa_entries(prefix, module)
        elif isinstance(module, nnx.Linear) and path[-1] == "fc":
            view = module.kernel.shape[::-1]
            yield Entry(prefix + "weight", (*view, 1), module.kernel, view, (1, 0))
            bias: Any = module.bias
            yield Entry(prefix + "bias", bias.shape, bias, bias.shape, (0,))


def _rsa_entries(prefix: str, layer: RSA) -> Iterator[Entry]:
    kernel = layer.projection.kernel
    view = kernel.shape[::-1]
    yield Entry(prefix + "projection.weight", (*view, 1, 1, 1), kernel, view, (1, 0))
    for name in ("P1", "I"):
        variable = getattr(layer, name)
        if variable is not None:
            yield Entry(prefix + name, (1, *variable.shape), variable, variable.shape, (0, 1))
    for name in ("H1", "H2", "G"):
        variable = getattr(layer, name)
        if variable is not None:
            positions, *outputs = variable.shape
            view, order = (*outputs, positions), (len(outputs), *range(len(outputs)))
            shape = (int(np.prod(outputs)), 1, *layer.kernel_size)
            yield Entry(f"{prefix}{name}.weight", shape, variable, view, order)


def _torch_prefix(path: tuple[Any, ...]) -> str:
    """`base_model.layer1.2.conv2.` for `stages.0.2.conv2`, `new_fc.` for `fc`, empty for a single layer."""
    if not path:
        return ""
    if path[0] == "fc":
        return "new_fc."
    if path[0] == "stages" and len(path) > 2:
        path = (f"layer{int(path[1]) + 1}", *path[2:])
    return ".".join(str(part) for part in ("base_model", *path)) + "."


def _torchvision(model: TSNResNet, entries: list[Entry], arrays: StateDict) -> tuple[list[Entry], StateDict]:
    """Both without the classifier and blocks with a transform, with torchvision's names and shapes."""
    skip = ("fc.", "new_fc.", *(f"layer{stage + 1}.{index}." for stage, index in transform_blocks(model)))
    renamed = [entry._replace(name=entry.name.removeprefix("base_model."), shape=entry.view) for entry in entries]
    return (
        [entry for entry in renamed if not entry.name.startswith(skip)],
        {name: array for name, array in arrays.items() if not name.startswith(skip)},
    )


def _check_fit(entries: list[Entry], arrays: StateDict) -> None:
    expected = {entry.name: entry.shape for entry in entries}
    problems = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in arrays]
    problems += [f"unknown: {name} {array.shape}" for name, array in arrays.items() if name not in expected]
    problems += [
        f"wrong shape: {name}: expected {shape}, got {arrays[name].shape}"
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    ]
    problems += [
        f"wrong type: {name}: expected real numbers, got {arrays[name].dtype}"
        for name in expected
        if name in arrays and not _is_real(arrays[name])
    ]
    if problems:
        raise ValueError("the state dict does not fit the model:\n  " + "\n  ".join(problems))


def _is_real(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
