"""What can stand in a block of the network: the paper's equations, and the Flax layers over them."""

from rsa_jax.transforms.rsa import RSA

__all__ = ["RSA"]
