"""Chips that programs can be compiled for without having one, and the compilers' cost estimates."""

from rsa_jax.chips.chips import CHIPS, Chip
from rsa_jax.chips.estimate import Cost, compile_for

__all__ = ["CHIPS", "Chip", "Cost", "compile_for"]
