"""Devices that share a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType

# The axis of a mesh over which batches are split.
BATCH_AXIS = "data"


def number_of_devices() -> int:
    """Devices that share the batch, of the mesh that the program is traced under (`jax.set_mesh`); 1 without one."""
    return jax.sharding.get_abstract_mesh().shape.get(BATCH_AXIS, 1)


def on_each_device(
    function: Callable[..., Any],
    *arrays: Any,
    in_axes: Sequence[int | None],
    out_axes: Any,
    clips: int,
    kernels: bool = False,
) -> Any:
    """function(*arrays), computed on each device for its clips.

    XLA splits neither a convolution with groups nor an axis in which the frames come after the channels: it would
    gather all frames on every device. Kernels it refuses to compile for several devices unless each is told what to do.
    Which devices there are, see `number_of_devices`.

    Args:
        function: of clips that do not depend on each other.
        arrays: or trees of them.
        in_axes: of each, the axis of the clips; None for what they share.
        out_axes: likewise, of the results; one for all, or a tree of them.
        clips: their number. Where it is no multiple of the devices', XLA decides how they share the work; a function
            with kernels is computed in whole on every device.
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
