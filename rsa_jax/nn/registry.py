"""Transforms by their names in `model.transform` of a configuration."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from rsa_jax.errors import is_mistake
from rsa_jax.nn.convolutions import Conv2Plus1D, ShiftedConv, SpaceTimeConv
from rsa_jax.nn.involution import Involution
from rsa_jax.nn.lambda_layer import LambdaLayer
from rsa_jax.nn.rsa import RSA, FactorizedRSA
from rsa_jax.nn.self_attention import SelfAttention
from rsa_jax.ops.windows import KernelSize, check_kernel_size

# Makes a layer of stride 1 with the given number of input and output channels.
TransformFactory = Callable[[int], nnx.Module]

# Sections of `model` with settings of transforms. Dynamic convolution is RSA with kernel and context "V".
SECTIONS = {name: name for name in ("rsa", "self_attention", "involution", "lambda_layer")} | {"dynamic_conv": "rsa"}


def transform_factory(config: ConfigDict, rngs: nnx.Rngs) -> TransformFactory | None:
    """Factory of the transform described by `config`, section `model` of a configuration; None for conv2d.

    Raises:
        ValueError: If there is no such transform. The factory raises it for an invalid field, and names the field.
    """
    name = config.transform
    if name == "conv2d":
        return None
    if name not in TRANSFORMS:
        raise ValueError(f"model.transform: expected one of {TRANSFORMS}, got {name!r}")
    settings = dict(config[SECTIONS[name]]) if name in SECTIONS else {}
    settings.update(
        batch_norm_clips=config.batch_norm_clips,
        dtype=jnp.dtype(config.dtype),
        implementation=config.implementation,
        rngs=rngs,
    )

    def make(channels: int) -> nnx.Module:
        try:
            return _MAKERS[name](channels, **settings)
        except ValueError as error:
            if not is_mistake(error):
                raise
            raise ValueError(f"model.{SECTIONS.get(name, 'transform')}.{error}") from error

    return make


def _rsa(channels: int, *, kernel_size: KernelSize, factorized: bool = False, **settings: Any) -> nnx.Module:
    check_kernel_size(kernel_size)  # three sizes; RSA itself also takes two or one
    return (FactorizedRSA if factorized else RSA)(channels, kernel_size=kernel_size, **settings)


def _dynamic_conv(channels: int, **settings: Any) -> nnx.Module:
    return _rsa(channels, **settings | {"kernel": "V", "context": "V"})


def _without_batch_norm(layer: Callable[..., nnx.Module]) -> Callable[..., nnx.Module]:
    return lambda channels, *, batch_norm_clips, **settings: layer(channels, **settings)


_MAKERS: dict[str, Callable[..., nnx.Module]] = {
    "rsa": _rsa,
    "dynamic_conv": _dynamic_conv,
    "conv3d": _without_batch_norm(lambda channels, **settings: SpaceTimeConv(channels, channels, **settings)),
    "conv2plus1d": Conv2Plus1D,
    "tsm": _without_batch_norm(ShiftedConv),
    "self_attention": _without_batch_norm(SelfAttention),
    "involution": Involution,
    "lambda_layer": LambdaLayer,
}
# Valid values of `model.transform`.
TRANSFORMS = ("conv2d", *_MAKERS)
