"""Relational Self-Attention for video understanding, in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsa_jax import ops, weights
    from rsa_jax.nn import RSA, RSANet, create_model

__all__ = ["RSA", "RSANet", "create_model", "ops", "weights"]

_MODULES = {"RSA": "rsa_jax.nn", "RSANet": "rsa_jax.nn", "create_model": "rsa_jax.nn"}


def __getattr__(name: str) -> Any:
    """Imports an attribute on first access: programs that compute nothing start without JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """Names of the package, including attributes not imported yet."""
    return sorted({*globals(), *__all__})
