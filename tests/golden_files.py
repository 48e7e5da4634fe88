"""The reference outputs in tests/golden, and the recipe behind their weights and inputs."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden"
sys.path.insert(0, str(FOLDER))

import recipe  # noqa: E402


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def layer_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of RSA for a case of rsa_layer.json."""
    return {
        "channels": settings["channels"],
        "num_queries": settings["queries"],
        "kernel_size": tuple(settings["kernel_size"]),
        "latent_dim": settings["latent_dim"],
        "kernel": settings["kernel"].replace("plus", "+"),
        "context": settings["context"].replace("plus", "+"),
    }


def arrays(name: str) -> Any:
    return np.load(FOLDER / f"{name}.npz")


def state_dict(shapes: dict[str, list[int]], prefix: str = "") -> dict[str, np.ndarray]:
    return {name: recipe.weight(prefix + name, tuple(shape)) for name, shape in shapes.items()}
