"""TSN-ResNet for video, with a transform in any of its blocks."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from rsa_jax import ops
from rsa_jax.nn.layers import BatchNorm, SpatialConv, StochasticDepth, average_pool
from rsa_jax.nn.model_config import model_config
from rsa_jax.nn.registry import TransformFactory, transform_factory

STAGE_SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Output channels of a bottleneck, as a multiple of its width.
EXPANSION = 4


class Block(nnx.Module):
    """A residual block: relu(shortcut + branch).

    The branch is 1x3x3, 1x3x3, or in a bottleneck 1x1x1, 1x3x3, 1x1x1, the last with `EXPANSION` times the width.
    A transform replaces the second convolution. Transforms have no stride: where that convolution has one, the
    transform's output is average-pooled by it. `conv` and `norm` are settings of all convolutions and normalisations.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        bottleneck: bool,
        stride: int,
        transform: TransformFactory | None,
        keep_prob: float,
        last_scale: float,
        conv: dict[str, Any],
        norm: dict[str, Any],
    ):
        channels = width * EXPANSION if bottleneck else width
        size1, stride1, stride2 = (1, 1, stride) if bottleneck else (3, stride, 1)
        self.conv1 = SpatialConv(in_channels, width, size1, stride=stride1, **conv)
        self.bn1 = BatchNorm(width, **norm)
        self.conv2 = transform(width) if transform else SpatialConv(width, width, 3, stride=stride2, **conv)
        self.transform_stride = stride2 if transform else 1
        self.bn2 = BatchNorm(width, scale_init=1.0 if bottleneck else last_scale, **norm)
        self.conv3 = SpatialConv(width, channels, 1, **conv) if bottleneck else None
        self.bn3 = BatchNorm(channels, scale_init=last_scale, **norm) if bottleneck else None
        self.downsample: nnx.List[nnx.Module] = nnx.List([])  # empty for an identity shortcut
        if stride > 1 or in_channels != channels:
            self.downsample.append(SpatialConv(in_channels, channels, 1, stride=stride, **conv))
            self.downsample.append(BatchNorm(channels, **norm))
        self.stochastic_depth = StochasticDepth(keep_prob)

    def branch(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """The residual branch."""
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = self.conv2(x)
        if self.transform_stride > 1:
            x = average_pool(x, self.transform_stride)
        x = self.bn2(x)
        return self.bn3(self.conv3(nnx.relu(x))) if self.conv3 and self.bn3 else x

    def __call__(self, x: Float[Array, "B T H W C"], rngs: nnx.Rngs | None) -> Float[Array, "B T h w D"]:
        """The block's output."""
        shortcut = x
        for layer in self.downsample:
            shortcut = layer(shortcut)
        return nnx.relu(shortcut + self.stochastic_depth(self.branch(x), rngs))


class TSNResNet(nnx.Module):
    """Frame-wise ResNet in which only the transforms mix frames; logits are averaged over frames.

    Args:
        config: section `model` of the configuration, with `num_classes` set.
        rngs: for the initial weights.
    """

    def __init__(self, config: ConfigDict, *, rngs: nnx.Rngs):
        self.implementation = config.implementation
        conv = {"dtype": jnp.dtype(config.dtype), "implementation": config.implementation, "rngs": rngs}
        norm = {"clips": config.batch_norm_clips, "implementation": config.implementation}
        sizes = tuple(config.stage_sizes) or STAGE_SIZES[config.depth]
        bottleneck = config.depth >= 50
        self.remat, self.pool = config.remat, config.stem_pool
        self.conv1 = SpatialConv(3, config.width, config.stem_kernel, stride=config.stem_stride, **conv)
        self.bn1 = BatchNorm(config.width, **norm)
        keep_prob = iter(keep_probs(sum(sizes), config.stochastic_depth))
        make_transform = transform_factory(config, rngs)
        in_channels, stages = config.width, []
        # For "conv2d", `transform_blocks` is ignored and need not fit the stages.
        all_blocks = config.transform_blocks if make_transform else ((),) * len(sizes)
        for stage, (size, transform_blocks) in enumerate(zip(sizes, all_blocks, strict=True)):
            width, blocks = config.width * 2**stage, []
            for index in range(size):
                blocks.append(
                    Block(
                        in_channels,
                        width,
                        bottleneck=bottleneck,
                        stride=2 if index == 0 and stage > 0 else 1,
                        transform=make_transform if index in transform_blocks else None,
                        keep_prob=next(keep_prob),
                        last_scale=0.0 if config.zero_init else 1.0,
                        conv=conv,
                        norm=norm,
                    )
                )
                in_channels = width * EXPANSION if bottleneck else width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.dropout = nnx.Dropout(config.dropout)
        self.fc = nnx.Linear(
            in_channels, config.num_classes, kernel_init=initializers.glorot_uniform(), param_dtype=float, rngs=rngs
        )

    def __call__(self, clips: Float[Array, "B T H W 3"], rngs: nnx.Rngs | None = None) -> Float[Array, "B classes"]:
        """Class logits of normalised clips. Training with dropout or stochastic depth needs `rngs`."""
        features = jnp.mean(self.feature_maps(clips, rngs)[-1], axis=(2, 3), dtype=self.fc.kernel.dtype)
        if self.dropout.rate:
            features = self.dropout(features, rngs=rngs)
        return jnp.mean(self.fc(features), axis=1)

    def feature_maps(
        self, clips: Float[Array, "B T H W 3"], rngs: nnx.Rngs | None = None
    ) -> list[Float[Array, "B T h w D"]]:
        """The output of every stage."""
        x = nnx.relu(self.bn1(self.conv1(clips)))
        if self.pool:
            x = ops.max_pool(x, implementation=self.implementation)
        apply = nnx.remat(Block.__call__) if self.remat else Block.__call__
        maps = []
        for stage in self.stages:
            for block in stage:
                x = apply(block, x, rngs)
            maps.append(x)
        return maps


def RSANet(num_classes: int, *, rngs: nnx.Rngs, **fields: Any) -> TSNResNet:
    """The network of the paper, by default RSANet-R50, in training mode.

    Args:
        num_classes: of the classifier.
        rngs: for the initial weights.
        fields: other fields of `rsa_jax.nn.model_config.model_config`, such as `depth=101`, `rsa={"num_queries": 4}` or
            `transform="tsm"`.

    Raises:
        ValueError: If a field is unknown or has an invalid value.
    """
    config = model_config()
    _set_fields(config, {"num_classes": num_classes, **fields}, "")
    return create_model(config, rngs=rngs)


def _set_fields(config: ConfigDict, fields: Mapping[str, Any], prefix: str) -> None:
    for name, value in fields.items():
        if name not in config:
            raise ValueError(f"{prefix}{name}: expected one of the fields {', '.join(sorted(config))}")
        if isinstance(config[name], ConfigDict):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{name}: expected fields by name, got {value!r}")
            _set_fields(config[name], value, f"{prefix}{name}.")
            continue
        try:
            config[name] = value
        except TypeError as error:
            expected = config.get_type(name).__name__
            raise ValueError(f"{prefix}{name}: expected a value of type {expected}, got {value!r}") from error


def create_model(config: ConfigDict, *, rngs: nnx.Rngs) -> TSNResNet:
    """Network described by `config`, section `model` of a configuration, in training mode.

    Raises:
        ValueError: If a field is invalid; the message names it and the expected values.
    """
    _check(config)
    return TSNResNet(config, rngs=rngs)


def keep_probs(blocks: int, stochastic_depth: float) -> list[float]:
    """Keep probability of each block, linear from 1 at the first to 1 - stochastic_depth at the last."""
    return [1.0 - stochastic_depth * index / max(blocks - 1, 1) for index in range(blocks)]


def count_parameters(model: nnx.Module) -> int:
    """Number of trainable parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def _check(config: ConfigDict) -> None:
    if config.depth not in STAGE_SIZES:
        raise ValueError(f"model.depth: expected one of {sorted(STAGE_SIZES)}, got {config.depth}")
    if config.dtype not in ("float32", "float64", "bfloat16"):
        raise ValueError(f"model.dtype: expected 'float32', 'bfloat16' or 'float64', got {config.dtype!r}")
    if config.dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError("model.dtype: 'float64' needs JAX_ENABLE_X64=1 in the environment")
    if config.num_classes is None or config.num_classes < 1:
        raise ValueError(
            f"model.num_classes: expected a number (--config.model.num_classes=N), got {config.num_classes}"
        )
    try:
        ops.check_implementation(config.implementation)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    if config.transform != "conv2d":
        _check_transform_blocks(tuple(config.stage_sizes) or STAGE_SIZES[config.depth], config.transform_blocks)


def _check_transform_blocks(sizes: Sequence[int], blocks: Sequence[Sequence[int]]) -> None:
    if len(blocks) != len(sizes):
        raise ValueError(f"model.transform_blocks: expected a tuple for each of {len(sizes)} stages, got {blocks}")
    for stage, (size, indices) in enumerate(zip(sizes, blocks, strict=True)):
        if not isinstance(indices, Sequence):
            raise ValueError(f"model.transform_blocks: expected a tuple of blocks for stage {stage}, got {indices!r}")
        if any(not 0 <= index < size for index in indices):
            raise ValueError(f"model.transform_blocks: stage {stage} has blocks 0 to {size - 1}, got {indices}")
