"""Chips that a program can be compiled for without having one, and what their compilers say that it costs."""

from rsa_jax.chips.chips import CHIPS, Chip
from rsa_jax.chips.cost import Cost, compile_for

__all__ = ["CHIPS", "Chip", "Cost", "compile_for"]
