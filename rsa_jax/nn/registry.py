"""Transforms by their names in `model.transform` of a configuration."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from rsa_jax.errors import is_mistake
from rsa_jax.nn.convolutions import Conv2Plus1D, ShiftedConv, SpaceTimeConv
from rsa_jax.nn.involution import Involution
from rsa_jax.nn.lambda_layer import LambdaLayer
from rsa_jax.nn.protocols import Transform
from rsa_jax.nn.rsa import RSA, FactorizedRSA
from rsa_jax.nn.self_attention import SelfAttention
from rsa_jax.ops.windows import KernelSize, check_kernel_size

# Makes a transform with the given number of input and output channels.
TransformFactory = Callable[[int], Transform]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A transform in the registry.

    Attributes:
        make: makes the layer from its number of channels and, by keyword, the fields of `section`, `dtype`,
            `implementation`, `rngs` and, with BatchNorm, `batch_norm_clips`.
        section: section of `model` with the transform's settings; None if it has no settings.
        batch_norm: whether the layer can contain BatchNorm.
    """

    make: Callable[..., Transform]
    section: str | None = None
    batch_norm: bool = False


def _rsa(channels: int, *, kernel_size: KernelSize, factorized: bool, **settings: Any) -> RSA | FactorizedRSA:
    check_kernel_size(kernel_size)  # three sizes; RSA itself also takes two or one
    return (FactorizedRSA if factorized else RSA)(channels, kernel_size=kernel_size, **settings)


def _dynamic_conv(channels: int, **settings: Any) -> RSA | FactorizedRSA:
    return _rsa(channels, **settings | {"kernel": "V", "context": "V"})


def _conv3d(channels: int, **settings: Any) -> SpaceTimeConv:
    return SpaceTimeConv(channels, channels, **settings)


# Valid values of `model.transform`. "conv2d" has no entry: its blocks keep their 1x3x3 convolution.
TRANSFORMS: dict[str, Entry | None] = {
    "conv2d": None,
    "rsa": Entry(_rsa, "rsa", batch_norm=True),
    "dynamic_conv": Entry(_dynamic_conv, "rsa", batch_norm=True),
    "conv3d": Entry(_conv3d),
    "conv2plus1d": Entry(Conv2Plus1D, batch_norm=True),
    "tsm": Entry(ShiftedConv),
    "self_attention": Entry(SelfAttention, "self_attention"),
    "involution": Entry(Involution, "involution", batch_norm=True),
    "lambda_layer": Entry(LambdaLayer, "lambda_layer", batch_norm=True),
}


def transform_factory(config: ConfigDict, rngs: nnx.Rngs) -> TransformFactory | None:
    """Factory of the transform described by `config`, section `model` of a configuration; None for "conv2d".

    Raises:
        ValueError: If there is no such transform. The factory raises it for an invalid field, and names the field.
    """
    if config.transform not in TRANSFORMS:
        raise ValueError(f"model.transform: expected one of {tuple(TRANSFORMS)}, got {config.transform!r}")
    entry = TRANSFORMS[config.transform]
    if entry is None:
        return None
    settings = dict(config[entry.section]) if entry.section else {}
    settings.update(dtype=jnp.dtype(config.dtype), implementation=config.implementation, rngs=rngs)
    if entry.batch_norm:
        settings["batch_norm_clips"] = config.batch_norm_clips

    def make(channels: int) -> Transform:
        try:
            return entry.make(channels, **settings)
        except ValueError as error:
            if not is_mistake(error):
                raise
            raise ValueError(f"model.{entry.section or 'transform'}.{error}") from error

    return make
