"""Weight files: PyTorch, .safetensors and .npz."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy

from rsa_jax.files import complete
from rsa_jax.weights.content import identify
from rsa_jax.weights.pytorch import import_torch, read_torch, write_torch
from rsa_jax.weights.state_dict import StateDict, as_arrays, check_finite


def read_state_dict(path: str | Path) -> StateDict:
    """Arrays of a weight file by name; prefixes of wrappers, such as a leading "module.", are removed.

    Args:
        path: file of PyTorch (no code in it is run), .safetensors or .npz. The content determines the format; the
            extension plays no part.

    Raises:
        ValueError: If the file does not exist, cannot be read, holds no weights, or holds NaN or infinity.
        ImportError: If it is a PyTorch file and PyTorch is not installed.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a weight file, got a folder")
    if not path.is_file():
        raise ValueError(f"{path}: weight file not found")
    entries = _READERS[identify(path)](path)
    arrays = {name: value for name, value in entries.items() if isinstance(name, str) and hasattr(value, "shape")}
    if not arrays:
        raise ValueError(f"{path}: expected arrays by name, got {_listing(entries)}")
    try:
        state_dict = as_arrays(arrays)
        check_finite(state_dict)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return state_dict


def write_state_dict(path: str | Path, state_dict: StateDict) -> None:
    """Write a weight file atomically: it is complete or absent.

    A PyTorch file has the layout of the released ones: names begin with "module." and are nested under "state_dict",
    beside the epoch and the accuracy that the published code expects (0, since they are unknown here).

    Args:
        path: to write; the extension, in upper or lower case, determines the format: .pth.tar, .pth, .pt (PyTorch),
            .safetensors or .npz. Missing folders are made.
        state_dict: from `to_torch` or `read_state_dict`.

    Raises:
        ValueError: If the path exists or its extension is unknown.
        OSError: If the file cannot be written.
        ImportError: If a PyTorch file is to be written and PyTorch is not installed.
    """
    path = Path(path)
    write = FORMATS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"{path}: expected a weight file with extension {', '.join(FORMATS)}")
    if write is write_torch:
        import_torch()  # before anything is made
    try:
        if path.exists():
            raise ValueError(f"{path} exists already" + (" and is a folder" if path.is_dir() else ""))
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete(path) as partial, partial.open("wb") as file:
            write(file, state_dict)
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {error.strerror or error}") from error


def _listing(entries: Mapping[Any, Any]) -> str:
    names = [str(name) for name in entries]
    return ", ".join(names[:5] + ["..."] * (len(names) > 5)) or "nothing"


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # many kinds for a damaged file
        reason = "truncated or damaged .npz file: download or copy it again"
        if "allow_pickle" in str(error):
            reason = "holds Python objects, which are not read because a pickle can run code: save arrays of numbers"
        raise ValueError(f"{path}: {reason}") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path}: truncated or damaged .safetensors file: download or copy it again ({error})"
        ) from error
    except (AttributeError, TypeError) as error:  # types that NumPy lacks, such as 8-bit floats
        raise ValueError(f"{path}: holds numbers of an unknown type: {error}") from error


def _write_npz(file: IO[bytes], state_dict: StateDict) -> None:
    np.savez(file, allow_pickle=False, **state_dict)


def _write_safetensors(file: IO[bytes], state_dict: StateDict) -> None:
    # The library writes an array's raw memory, ignoring its strides.
    file.write(safetensors.numpy.save({name: array.copy(order="C") for name, array in state_dict.items()}))


_READERS: dict[str, Callable[[Path], dict[Any, Any]]] = {
    "torch": read_torch,
    "safetensors": _read_safetensors,
    "npz": _read_npz,
}
# Writers by extension.
FORMATS: dict[str, Callable[[IO[bytes], StateDict], None]] = {
    ".tar": write_torch,
    ".pth": write_torch,
    ".pt": write_torch,
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
