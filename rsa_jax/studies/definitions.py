"""Studies: variants by name, each with the configuration fields that it changes.

`table_...` are tables of the paper, `supplement_...` tables of its supplement. Both are for the published network of
configs/ssv1.py: a ResNet-50 with 7 RSA layers, 8 queries and a 5 x 7 x 7 window unless a row states otherwise.
The others are their counterparts for small networks, such as the one in configs/motion.py.
"""

from typing import Any

Study = dict[str, dict[str, Any]]

_PARTS = ("V", "R", "V+R")

# A kernel with only the basic part has neither, whatever the configuration sets for other variants.
_BASIC: dict[str, Any] = {"latent_dim": None, "relation_groups": None}


def _rsa(transform: str = "rsa", **fields: Any) -> dict[str, Any]:
    return {"model.transform": transform, **{f"model.rsa.{name}": value for name, value in fields.items()}}


def _attention(
    position: str, key_value: str = "per_head", kernel_size: tuple[int, ...] = (5, 7, 7), softmax: bool = True
) -> dict[str, Any]:
    fields = {"position": position, "key_value": key_value, "kernel_size": kernel_size, "softmax": softmax}
    return {
        "model.transform": "self_attention",
        **{f"model.self_attention.{name}": value for name, value in fields.items()},
    }


# The paper's comparison and common baselines, in the same blocks of the same network.
TRANSFORMS: Study = {
    "1x3x3 convolution (TSN)": {"model.transform": "conv2d"},
    "temporal shift (TSM)": {"model.transform": "tsm"},
    "(2+1)D convolution": {"model.transform": "conv2plus1d"},
    "3x3x3 convolution": {"model.transform": "conv3d"},
    "self-attention": {"model.transform": "self_attention"},
    "dynamic convolution": _rsa("dynamic_conv", **_BASIC),
    "involution": {"model.transform": "involution"},
    "lambda layer": {"model.transform": "lambda_layer"},
    "RSA": _rsa(),
}

# Window, position encoding, and whether heads share keys and values.
ATTENTION: Study = {
    f"{place}, positions: {position}, {heads}": _attention(position, key_value, kernel_size)
    for place, kernel_size in (("window", (5, 7, 7)), ("everywhere", ()))
    for position, heads, key_value in (
        ("none", "multi-head", "per_head"),
        ("absolute", "multi-head", "per_head"),
        ("relative", "multi-head", "per_head"),
        ("relative", "multi-query", "shared"),
    )
} | {"window, positions: relative, multi-head, no softmax": _attention("relative", softmax=False)}


def _relation(
    groups: int | None, *, decomposed: bool = True, factorized: bool = False, **fields: Any
) -> dict[str, Any]:
    # Two queries: with more, each would have so few channels that a group would be a single channel.
    return _rsa(num_queries=2, relation_groups=groups, decomposed=decomposed, factorized=factorized, **fields)


RELATION: Study = {
    "L = 2, dot product (G = 1)": _relation(1),
    "L = 2, G = 4": _relation(4),
    "L = 2, Hadamard product": _relation(None),
    "L = 2, Hadamard product, 3 x 3 x 3": _relation(None, kernel_size=(3, 3, 3)),
    "L = 2, Hadamard product, 3 x 3 x 3, H not decomposed": _relation(
        None, kernel_size=(3, 3, 3), decomposed=False, latent_dim=None
    ),
    "L = 2, Hadamard product, 2-D and 1-D, one after the other": _relation(None, factorized=True),
}

KERNEL_AND_CONTEXT: Study = {
    f"kernel {kernel}, context {context}": _rsa(kernel=kernel, context=context, **(_BASIC if kernel == "V" else {}))
    for kernel in _PARTS
    for context in _PARTS
}

# With D = 16, as in the paper's table. With 16 queries in 16 channels, normalisation would leave only signs.
QUERIES: Study = {f"L = {queries}, D = 16": _rsa(num_queries=queries, latent_dim=16) for queries in (1, 2, 4, 8)}

LATENT_DIM: Study = {f"D = {size}": _rsa(latent_dim=size) for size in (2, 4, 8, 16)}

WINDOW: Study = {
    " x ".join(map(str, size)): _rsa(kernel_size=size)
    for size in ((1, 7, 7), (3, 3, 3), (3, 5, 5), (3, 7, 7), (5, 5, 5), (5, 7, 7), (5, 9, 9))
}

NORMALIZATION: Study = {name: _rsa(normalization=name) for name in ("none", "batch", "lambda", "l2")}

# For configs/motion.py, which has two stages of two blocks.
LAYERS: Study = {
    "0 layers": {**_rsa(), "model.transform_blocks": ((), ())},
    "1 layer": {**_rsa(), "model.transform_blocks": ((), (1,))},
    "2 layers": {**_rsa(), "model.transform_blocks": ((1,), (1,))},
    "3 layers": {**_rsa(), "model.transform_blocks": ((0, 1), (1,))},
    "4 layers": {**_rsa(), "model.transform_blocks": ((0, 1), (0, 1))},
}

# Convolutions, dynamic convolution, self-attention with and without softmax (σ) and position encoding, and RSA.
TABLE_2: Study = {
    "1x3x3 convolution (TSN)": {"model.transform": "conv2d"},
    "(2+1)D convolution": {"model.transform": "conv2plus1d"},
    "3x3x3 convolution": {"model.transform": "conv3d"},
    **{
        f"self-attention, {place}, positions: {position}, {'softmax' if softmax else 'no softmax'}": _attention(
            position, kernel_size=kernel_size, softmax=softmax
        )
        for place, kernel_size in (("window", (5, 7, 7)), ("everywhere", ()))
        for softmax in (False, True)
        for position in ("none", "relative")
    },
    "dynamic convolution": _rsa("dynamic_conv", **_BASIC),
    "RSA": _rsa(),
}

# Kernel and context of a single RSA layer, in the block of the "1 layer" row of the supplement's table 2b.
TABLE_4A: Study = {
    name: {**changes, "model.transform_blocks": ((), (), (1,), ())} for name, changes in KERNEL_AND_CONTEXT.items()
}

# Latent dimension D of the decomposition of H and P in all layers, and no decomposition.
TABLE_4B: Study = {
    **{f"D = {size}": _rsa(latent_dim=size) for size in (2, 4, 8, 16, 32)},
    "D = C / L": _rsa(latent_dim=None),
    "H not decomposed": _rsa(latent_dim=None, decomposed=False),
}

# At most 8 groups: the first stage has 8 channels per query.
TABLE_4C: Study = {
    "dot product (G = 1)": _rsa(relation_groups=1),
    "G = 2": _rsa(relation_groups=2),
    "G = 4": _rsa(relation_groups=4),
    "G = 8": _rsa(relation_groups=8),
    "Hadamard product (G = C / L)": _rsa(relation_groups=None),
}

TABLE_4D: Study = {name: changes for name, changes in WINDOW.items() if name != "1 x 7 x 7"}

SUPPLEMENT_2A: Study = {f"L = {queries}": _rsa(num_queries=queries, latent_dim=16) for queries in (1, 2, 4, 8, 16)}

SUPPLEMENT_2B: Study = {
    "0 layers": {**_rsa(), "model.transform_blocks": ((), (), (), ())},
    "1 layer": {**_rsa(), "model.transform_blocks": ((), (), (1,), ())},
    "2 layers": {**_rsa(), "model.transform_blocks": ((), (), (1,), (1,))},
    "4 layers": {**_rsa(), "model.transform_blocks": ((), (), (1, 3, 5), (1,))},
    "7 layers": {**_rsa(), "model.transform_blocks": ((2,), (1, 3), (1, 3, 5), (1,))},
}

STUDIES: dict[str, Study] = {
    "table_2": TABLE_2,
    "table_4a": TABLE_4A,
    "table_4b": TABLE_4B,
    "table_4c": TABLE_4C,
    "table_4d": TABLE_4D,
    "supplement_2a": SUPPLEMENT_2A,
    "supplement_2b": SUPPLEMENT_2B,
    "supplement_2c": NORMALIZATION,
    "transforms": TRANSFORMS,
    "self_attention": ATTENTION,
    "relation": RELATION,
    "kernel_and_context": KERNEL_AND_CONTEXT,
    "queries": QUERIES,
    "latent_dim": LATENT_DIM,
    "window": WINDOW,
    "normalization": NORMALIZATION,
    "layers": LAYERS,
}
