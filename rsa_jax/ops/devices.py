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
    out_axes: int,
    clips: int,
    check_vma: bool = True,
) -> Any:
    """function(*arrays), computed on each device for its clips.

    XLA splits neither a kernel, nor a convolution with groups, nor an axis in which the frames come after the channels:
    it would gather all frames on every device. Which devices there are, see `number_of_devices`.

    Args:
        function: of clips that do not depend on each other.
        arrays: or trees of them.
        in_axes: of each, the axis of the clips; None for what they share.
        out_axes: likewise, of all results.
        clips: their number. Where it is no multiple of the devices', it is left to XLA how they share the work.
        check_vma: False for a function with kernels, of which JAX does not know what they share.
    """
    devices = number_of_devices()
    if devices == 1 or clips % devices or AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types:
        return function(*arrays)

    def split(axis: int | None) -> jax.P:
        return jax.P() if axis is None else jax.P(*[None] * axis, BATCH_AXIS)

    in_specs = tuple(map(split, in_axes))
    return jax.shard_map(function, in_specs=in_specs, out_specs=split(out_axes), check_vma=check_vma)(*arrays)
