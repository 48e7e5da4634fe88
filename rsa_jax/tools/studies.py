"""What the paper compares: variants by name, each with the fields of the configuration that it changes."""

from typing import Any

Study = dict[str, dict[str, Any]]

_PARTS = ("V", "R", "V+R")

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

NORMALIZATION: Study = {name: {"model.rsa.normalization": name} for name in ("none", "l2")}

# Of the two stages of two blocks of configs/motion.py.
LAYERS: Study = {
    "0 layers": {"model.positions": ((), ())},
    "1 layer": {"model.positions": ((), (1,))},
    "2 layers": {"model.positions": ((1,), (1,))},
    "3 layers": {"model.positions": ((0, 1), (1,))},
    "4 layers": {"model.positions": ((0, 1), (0, 1))},
}

STUDIES: dict[str, Study] = {
    "kernel_and_context": KERNEL_AND_CONTEXT,
    "queries": QUERIES,
    "latent_dim": LATENT_DIM,
    "window": WINDOW,
    "normalization": NORMALIZATION,
    "layers": LAYERS,
}
