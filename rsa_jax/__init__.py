"""Relational Self-Attention for video understanding, in JAX and Flax."""

from rsa_jax import weights
from rsa_jax.network import create_model
from rsa_jax.transforms import RSA

__all__ = ["RSA", "create_model", "weights"]
