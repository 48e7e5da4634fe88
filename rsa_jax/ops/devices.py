"""Devices that share a batch."""

from collections.abc import Callable

import jax
from jax.sharding import AxisType
from jaxtyping import Array, Float

# The axis of a mesh over which batches are split.
BATCH_AXIS = "data"


def number_of_devices() -> int:
    """Devices that share the batch, of the mesh that the program is traced under (`jax.set_mesh`); 1 without one."""
    return jax.sharding.get_abstract_mesh().shape.get(BATCH_AXIS, 1)


def on_each_device(
    function: Callable[[Array, Array], Array], x: Float[Array, "*N F"], weights: Float[Array, "*M"], clips: int
) -> Float[Array, "*O F"]:
    """function(x, weights), computed on each device for the frames of its clips.

    XLA splits neither a convolution with groups nor an axis in which the frames come after the channels: it would
    gather all frames on every device. Which devices there are, see `number_of_devices`.

    Args:
        function: of clips that do not depend on each other.
        x: frames of all clips on the last axis.
        weights: that all clips share.
        clips: their number. Where it is no multiple of the devices', it is left to XLA how they share the work.
    """
    devices = number_of_devices()
    if devices == 1 or clips % devices or AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types:
        return function(x, weights)

    def frames_split(axes: int) -> jax.P:
        return jax.P(*[None] * (axes - 1), BATCH_AXIS)

    result = frames_split(jax.eval_shape(function, x, weights).ndim)
    return jax.shard_map(function, in_specs=(frames_split(x.ndim), jax.P()), out_specs=result)(x, weights)
