"""Computation on the devices that share a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType

# Mesh axis over which batches are sharded.
BATCH_AXIS = "data"


def number_of_devices() -> int:
    """Number of devices that share the batch in the mesh used for tracing (`jax.set_mesh`); 1 without a mesh."""
    return jax.sharding.get_abstract_mesh().shape.get(BATCH_AXIS, 1)


def on_each_device(
    function: Callable[..., Any],
    *arrays: Any,
    in_axes: Sequence[int | None],
    out_axes: Any,
    clips: int,
    kernels: bool = False,
) -> Any:
    """Compute function(*arrays) on each device for its own clips.

    XLA cannot split a grouped convolution, nor a merged axis in which the frames come after the channels: it would
    gather all frames on every device. It refuses to compile kernels for several devices unless the split is explicit.
    The devices are those that `number_of_devices` counts.

    Args:
        function: a function that treats clips independently.
        arrays: arrays or trees of arrays.
        in_axes: axis of the clips in each of the arrays; None for arrays that the clips share.
        out_axes: axis of the clips in the results; one for all, or a tree of axes.
        clips: number of clips. If it is not a multiple of the number of devices, XLA decides how to split the work,
            and a function with kernels is computed in full on every device.
        kernels: whether the function has Pallas kernels, whose outputs carry no replication information.
    """
    devices, mesh = number_of_devices(), jax.sharding.get_abstract_mesh()
    divisible = devices > 1 and clips % devices == 0
    if AxisType.Manual in mesh.axis_types or not (divisible or (kernels and not mesh.empty and mesh.size > 1)):
        return function(*arrays)

    def split(axis: int | None) -> jax.P:
        return jax.P(*[None] * axis, BATCH_AXIS) if divisible and axis is not None else jax.P()

    in_specs, out_specs = tuple(map(split, in_axes)), jax.tree.map(split, out_axes)
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=not kernels)(*arrays)
