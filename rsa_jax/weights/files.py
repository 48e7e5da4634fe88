"""Weight files: PyTorch, .safetensors and .npz."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from rsa_jax.files import complete
from rsa_jax.weights.state_dict import StateDict, as_arrays

# A PyTorch file is the state dict itself, or holds it under one of these names beside other entries.
NESTED = ("state_dict", "model")


class Format(NamedTuple):
    """Reader and writer of a file format."""

    read: Callable[[Path], dict[str, Any]]
    write: Callable[[Path, StateDict], None]


def read_state_dict(path: str | Path) -> StateDict:
    """Arrays of a weight file by name; a leading "module." of the names is removed.

    Args:
        path: the extension determines the format: .pth.tar, .pth, .pt (PyTorch; no code in it is executed),
            .safetensors or .npz.

    Raises:
        ValueError: If the file does not exist, cannot be read or holds no weights, or the extension is unknown.
        ImportError: If a PyTorch file is to be read and PyTorch is not installed.
    """
    path = Path(path)
    file_format = _format(path)
    if not path.is_file():
        raise ValueError(f"{path}: weight file not found")
    try:
        state_dict = file_format.read(path)
    except ImportError:
        raise
    except Exception as error:  # each format raises many kinds of errors for a damaged file
        raise ValueError(f"{path}: cannot be read as {path.suffix}: {error}") from error
    arrays = {name: value for name, value in state_dict.items() if hasattr(value, "shape")}
    if not arrays:
        raise ValueError(f"{path}: expected arrays by name, got {', '.join(state_dict) or 'nothing'}")
    try:
        return as_arrays(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_state_dict(path: str | Path, state_dict: StateDict) -> None:
    """Write a weight file atomically: it is complete or absent.

    A PyTorch file has the layout of the released ones: names begin with "module." and are nested under "state_dict",
    beside the epoch and the accuracy that the published code expects (0, since they are unknown here).

    Args:
        path: to write; the extension determines the format, as for `read_state_dict`.
        state_dict: from `to_torch` or `read_state_dict`.

    Raises:
        ValueError: If the file exists or the extension is unknown.
        ImportError: If a PyTorch file is to be written and PyTorch is not installed.
    """
    path = Path(path)
    file_format = _format(path)
    if path.exists():
        raise ValueError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as partial:
        file_format.write(partial, state_dict)


def _format(path: Path) -> Format:
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a weight file with extension {', '.join(FORMATS)}")
    return FORMATS[path.suffix]


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "PyTorch files require PyTorch: pip install torch --index-url https://download.pytorch.org/whl/cpu "
            "(or convert them to .safetensors where it is installed)"
        ) from error
    return torch


def _read_torch(path: Path) -> dict[str, Any]:
    content = _torch().load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f"expected a dict, got a {type(content).__name__}")
    return next((content[name] for name in NESTED if isinstance(content.get(name), dict)), content)


def _write_torch(path: Path, state_dict: StateDict) -> None:
    torch = _torch()
    tensors = {f"module.{name}": torch.from_numpy(array.copy()) for name, array in state_dict.items()}
    torch.save({"epoch": 0, "arch": "resnet", "best_prec1": 0.0, "state_dict": tensors}, path)


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _write_npz(path: Path, state_dict: StateDict) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **state_dict)


def _write_safetensors(path: Path, state_dict: StateDict) -> None:
    # The library writes an array's raw memory, ignoring its strides.
    safetensors.numpy.save_file({name: array.copy(order="C") for name, array in state_dict.items()}, path)


_TORCH = Format(_read_torch, _write_torch)
FORMATS = {
    ".tar": _TORCH,
    ".pth": _TORCH,
    ".pt": _TORCH,
    ".safetensors": Format(safetensors.numpy.load_file, _write_safetensors),
    ".npz": Format(_read_npz, _write_npz),
}
