"""Maps with the frames of all clips on the last axis.

A chip computes with whole vectors along the last axis. Of all axes, that of the frames of all clips, F = B T, is the
one that is long at every stage of a network. Operations in this order take maps in the usual one, and return such:
where one follows another, XLA leaves out both transpositions.
"""

from jaxtyping import Array, Float


def frames_last(x: Float[Array, "B T H W *N"]) -> Float[Array, "H W *N F"]:
    """The map, clips and frames as one axis. By a transposition of four axes: XLA is slow at others."""
    batch, frames, height, width, *others = x.shape
    x = x.reshape(batch * frames, height, width, -1).transpose(1, 2, 3, 0)
    return x.reshape(height, width, *others, batch * frames)


def frames_first(x: Float[Array, "H W *N F"], frames: int) -> Float[Array, "B T H W *N"]:
    """The inverse of `frames_last`, for clips of so many frames."""
    height, width, *others, _ = x.shape
    x = x.reshape(height, width, -1, x.shape[-1]).transpose(3, 0, 1, 2)
    return x.reshape(-1, frames, height, width, *others)
