"""Feature maps with the frames of all clips on the last axis.

A chip computes with whole vectors along the last axis. Only the axis of the frames of all clips, F = B T, is long at
every stage of a network. Operations in this order take and return feature maps in the usual order: between two of
them, XLA removes both transpositions.
"""

from jaxtyping import Array, Float


def frames_last(x: Float[Array, "B T H W *N"]) -> Float[Array, "H W *N F"]:
    """Move clips and frames, merged, to the last axis. Transposes four axes: XLA is slow at other transpositions."""
    batch, frames, height, width, *others = x.shape
    x = x.reshape(batch * frames, height, width, -1).transpose(1, 2, 3, 0)
    return x.reshape(height, width, *others, batch * frames)


def frames_first(x: Float[Array, "H W *N F"], frames: int) -> Float[Array, "B T H W *N"]:
    """The inverse of `frames_last`, for clips of `frames` frames."""
    height, width, *others, _ = x.shape
    x = x.reshape(height, width, -1, x.shape[-1]).transpose(3, 0, 1, 2)
    return x.reshape(-1, frames, height, width, *others)
