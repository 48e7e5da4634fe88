"""Model configuration inferred from the names and shapes of a state dict."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rsa_jax.nn.network import STAGE_SIZES
from rsa_jax.weights.state_dict import plain_name

_BLOCK = re.compile(r"base_model\.layer(\d+)\.(\d+)\.")


class Layer(NamedTuple):
    """Settings of an RSA layer inferred from its weights, named as in `model.rsa` of the configuration."""

    num_queries: int
    kernel_size: tuple[int, int, int]
    latent_dim: int | None
    kernel: str
    context: str


def guess_model(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the `model` configuration that a state dict of the published code implies.

    Fields that leave no trace in the weights, such as dropout or the strides of the stem, are not included.

    Returns:
        `depth`, `stage_sizes`, `width`, `stem_kernel`, `num_classes`, `transform`, and for RSA `transform_blocks` and
        `rsa` (a dict of fields).

    Raises:
        ValueError: If these are not the weights of such a network, or its RSA layers differ in their settings.
    """
    shapes = {plain_name(name): tuple(value.shape) for name, value in state_dict.items()}
    for name in ("base_model.conv1.weight", "base_model.layer1.0.conv1.weight", "new_fc.weight"):
        if name not in shapes:
            raise ValueError(f"not a network of the published code: {name} is missing among {_first(shapes)}")
    sizes = _stage_sizes(shapes)
    bottleneck = "base_model.layer1.0.conv3.weight" in shapes
    fields: dict[str, Any] = {
        "width": shapes["base_model.conv1.weight"][0],
        "stem_kernel": shapes["base_model.conv1.weight"][-1],
        "num_classes": shapes["new_fc.weight"][0],
        "transform": "conv2d",
        **_depth(sizes, bottleneck),
    }
    layers = {
        (stage, block): _layer(shapes, f"base_model.layer{stage + 1}.{block}.conv2.")
        for stage, size in enumerate(sizes)
        for block in range(size)
        if f"base_model.layer{stage + 1}.{block}.conv2.projection.weight" in shapes
    }
    if layers:
        fields["transform"] = "rsa"
        fields["transform_blocks"] = tuple(
            tuple(block for block in range(size) if (stage, block) in layers) for stage, size in enumerate(sizes)
        )
        fields["rsa"] = _common(
            layers, {place: fields["width"] * 2 ** place[0] // layers[place].num_queries for place in layers}
        )
    return fields


def _stage_sizes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    blocks = {(int(match[1]), int(match[2])) for name in shapes if (match := _BLOCK.match(name))}
    stages = max(stage for stage, _ in blocks)
    return tuple(1 + max((block for s, block in blocks if s == stage), default=-1) for stage in range(1, stages + 1))


def _depth(sizes: tuple[int, ...], bottleneck: bool) -> dict[str, Any]:
    """`depth` with these stage sizes; if there is none, one with the same kind of block, and `stage_sizes`."""
    depths = [depth for depth in STAGE_SIZES if (depth >= 50) == bottleneck]
    named = [depth for depth in depths if STAGE_SIZES[depth] == sizes]
    return {"depth": named[0], "stage_sizes": ()} if named else {"depth": depths[0], "stage_sizes": sizes}


def _layer(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> Layer:
    if prefix + "H2.weight" not in shapes:
        raise ValueError(f"not an RSA layer of the published code: {prefix}H2.weight is missing")
    outputs, channels = shapes[prefix + "projection.weight"][:2]
    relational_kernel, relational_context = prefix + "H1.weight" in shapes, prefix + "G.weight" in shapes
    width = (outputs - channels) // (1 + relational_kernel)
    if width < 1 or channels % width:
        raise ValueError(f"{prefix}projection.weight: no number of queries fits its shape, ({outputs}, {channels})")
    latent_dim, _, *kernel_size = shapes[prefix + "H2.weight"]
    return Layer(
        num_queries=channels // width,
        kernel_size=(kernel_size[0], kernel_size[1], kernel_size[2]),
        latent_dim=latent_dim,
        kernel="V" if not relational_kernel else "V+R" if prefix + "P1" in shapes else "R",
        context="V" if not relational_context else "V+R" if prefix + "I" in shapes else "R",
    )


def _common(layers: Mapping[tuple[int, int], Layer], widths: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    """Settings shared by all layers; `latent_dim` is None if it equals the channels per query in every layer."""
    settings = set(layers.values())
    if all(layers[place].latent_dim == widths[place] for place in layers):
        settings = {layer._replace(latent_dim=None) for layer in settings}
    if len(settings) > 1:
        raise ValueError(
            "the RSA layers have different settings, which a configuration cannot express:\n"
            + "\n".join(f"  stage {stage}, block {block}: {layer}" for (stage, block), layer in layers.items())
        )
    return settings.pop()._asdict()


def _first(names: Mapping[str, Any]) -> str:
    return ", ".join([*list(names)[:3], "..."])
