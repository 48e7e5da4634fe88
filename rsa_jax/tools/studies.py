"""What the paper compares: variants by name, each with the fields of the configuration that it changes."""

from typing import Any

Study = dict[str, dict[str, Any]]

_PARTS = ("V", "R", "V+R")


def _attention(position: str, everywhere: bool = False) -> dict[str, Any]:
    window = {"model.self_attention.kernel_size": ()} if everywhere else {}
    return {"model.transform": "self_attention", "model.self_attention.position": position, **window}


# The paper's comparison, on the same blocks of the same network.
TRANSFORMS: Study = {
    "1x3x3 convolution (TSN)": {"model.transform": "conv2d"},
    "temporal shift (TSM)": {"model.transform": "tsm"},
    "(2+1)D convolution": {"model.transform": "conv2plus1d"},
    "3x3x3 convolution": {"model.transform": "conv3d"},
    "self-attention, no positions": _attention("none"),
    "self-attention, relative positions": _attention("relative"),
    "self-attention everywhere, relative positions": _attention("relative", everywhere=True),
    "dynamic convolution": {"model.transform": "dynamic_conv"},
    "involution": {"model.transform": "involution"},
    "lambda layer": {"model.transform": "lambda_layer"},
    "RSA": {},
}

RELATION: Study = {
    "dot product, G = 1": {"model.rsa.relation_groups": 1},
    "G = 2": {"model.rsa.relation_groups": 2},
    "Hadamard product": {},
    "dot product, H not decomposed": {"model.rsa.relation_groups": 1, "model.rsa.decomposed": False},
    "2-D and 1-D, one after the other": {"model.rsa.factorized": True},
}

KERNEL_AND_CONTEXT: Study = {
    f"kernel {kernel}, context {context}": {"model.rsa.kernel": kernel, "model.rsa.context": context}
    for kernel in _PARTS
    for context in _PARTS
}

QUERIES: Study = {f"L = {queries}": {"model.rsa.num_queries": queries} for queries in (1, 2, 4, 8, 16)}

LATENT_DIM: Study = {f"D = {size}": {"model.rsa.latent_dim": size} for size in (2, 4, 8, 16)}

WINDOW: Study = {
    " x ".join(map(str, size)): {"model.rsa.kernel_size": size}
    for size in ((1, 7, 7), (3, 3, 3), (3, 5, 5), (3, 7, 7), (5, 5, 5), (5, 7, 7), (5, 9, 9))
}

NORMALIZATION: Study = {name: {"model.rsa.normalization": name} for name in ("none", "batch", "lambda", "l2")}

# Of the two stages of two blocks of configs/motion.py.
LAYERS: Study = {
    "0 layers": {"model.positions": ((), ())},
    "1 layer": {"model.positions": ((), (1,))},
    "2 layers": {"model.positions": ((1,), (1,))},
    "3 layers": {"model.positions": ((0, 1), (1,))},
    "4 layers": {"model.positions": ((0, 1), (0, 1))},
}

STUDIES: dict[str, Study] = {
    "transforms": TRANSFORMS,
    "relation": RELATION,
    "kernel_and_context": KERNEL_AND_CONTEXT,
    "queries": QUERIES,
    "latent_dim": LATENT_DIM,
    "window": WINDOW,
    "normalization": NORMALIZATION,
    "layers": LAYERS,
}
