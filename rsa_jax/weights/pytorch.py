"""PyTorch files: read without running any code in them, and written in the layout of the released ones."""

import pickle
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from rsa_jax.weights.state_dict import StateDict

# A file is the state dict itself, or holds it under one of these names beside other entries: of the published code,
# Lightning and OpenMMLab; SlowFast; torchvision and timm; PyTorch's tutorials; DeepSpeed.
NESTED = ("state_dict", "model_state", "model", "model_state_dict", "module")
_PUBLISHED_ENTRIES = {"epoch": 0, "arch": "resnet", "best_prec1": 0.0}

# Modules whose names torch.load itself accepts or refuses, one by one: torch._utils and so on.
_TORCH = {"torch"} | {
    f"torch.{name}" for name in ("_utils", "_tensor", "cuda", "nn.parameter", "serialization", "storage")
}
# Packages whose objects stand beside weights: nothing of them is imported.
_HARMLESS = ("argparse", "collections", "datetime", "decimal", "fractions", "numpy", "pathlib", "uuid")
_TOOLKITS = ("addict", "easydict", "fvcore", "lightning", "mmcv", "mmengine", "omegaconf", "pytorch_lightning", "yacs")
_SCALARS = (bool, bytearray, bytes, complex, float, int, object, str)
_CONTAINERS = (dict, frozenset, list, range, set, slice, tuple)
# Subclasses of dict and list, to which a pickle adds entries; others take a state.
_DICTS = ("defaultdict", "EasyDict", "CfgNode", "AttributeDict", "Dict", "ConfigDict")
_LISTS = ("deque",)
_SAVE_PLAIN = "Where it was made, save the weights alone, with torch.save(model.state_dict(), FILE)"


class _Ignored:
    """Stand-in for an object that is not read."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _IgnoredDict(_Ignored):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _IgnoredList(_Ignored):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return []


def read_torch(path: Path) -> dict[Any, Any]:
    """Entries of the state dict in a PyTorch file.

    Tensors, containers and plain values are read. Well-known objects beside the weights, such as NumPy scalars, an
    `argparse.Namespace` or dates, are replaced by stand-ins. Any other object is refused, and no code is run.

    Raises:
        ValueError: If the file is damaged, needs code to be read or holds no dict.
        ImportError: If PyTorch is not installed.
    """
    names = _pickled_names(path)
    foreign = sorted(name for name in names if not _is_accepted(*name))
    if foreign:
        raise ValueError(_refusal(path, [".".join(name) for name in foreign]))
    torch = import_torch()
    try:
        stand_ins = [_stand_in(module, name) for module, name in names if module not in _TORCH]
        # Warnings ask to report pickles that PyTorch does not read; the error below says more.
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(_refusal(path, [named[1]] if named else [])) from error
    except Exception as error:  # many kinds for a damaged file
        raise ValueError(f"{path}: truncated or damaged PyTorch file: download or copy it again") from error
    for _ in range(2):
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected weights by name, got a {type(content).__name__}. {_SAVE_PLAIN}")
        content = next((content[name] for name in NESTED if isinstance(content.get(name), dict)), content)
    return content


def write_torch(file: IO[bytes], state_dict: StateDict) -> None:
    """Write a PyTorch file with the entries and names of the released ones."""
    torch = import_torch()
    tensors = {f"module.{name}": torch.from_numpy(array.copy()) for name, array in state_dict.items()}
    torch.save({**_PUBLISHED_ENTRIES, "state_dict": tensors}, file)


def import_torch() -> ModuleType:
    """PyTorch, which is not a dependency.

    Raises:
        ImportError: If it is not installed. The message says how to get it.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "PyTorch files require PyTorch: pip install torch --index-url https://download.pytorch.org/whl/cpu "
            "(or convert them to .safetensors where it is installed)"
        ) from error
    return torch


def _pickled_names(path: Path) -> set[tuple[str, str]]:
    """Module and name of each class and function that the file refers to."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                # A magic number, a version and the system's properties precede the content.
                return {name for _ in range(4) for name in _names(file)}
            with zipfile.ZipFile(file) as archive:
                member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                return set(_names(archive.open(member)))
    except Exception as error:  # many kinds for a damaged file
        raise ValueError(f"{path}: truncated or damaged PyTorch file: download or copy it again") from error


def _names(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            # The names of Python 2, which torch.save writes.
            yield NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))


def _is_accepted(module: str, name: str) -> bool:
    if module == "builtins":
        return name in {kind.__name__ for kind in _SCALARS + _CONTAINERS}
    # _codecs.encode makes bytes of text.
    package = module.partition(".")[0]
    return module in _TORCH or package in _HARMLESS + _TOOLKITS or (module, name) == ("_codecs", "encode")


def _stand_in(module: str, name: str) -> type:
    """Class that torch.load takes for the one of this name."""
    kind = _IgnoredDict if name in _DICTS else _IgnoredList if name in _LISTS else _Ignored
    return type(name, (kind,), {"__module__": module, "__qualname__": name})


def _refusal(path: Path, names: list[str]) -> str:
    """Message for a file that cannot be read without running its code, which refers to these names."""
    listing = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
    return f"{path}: holds more than weights, and reading it could run code{listing}; nothing was run. {_SAVE_PLAIN}"
