"""Import and export of the published PyTorch code's weights, and import of torchvision's."""

from rsa_jax.weights.guess import guess_model
from rsa_jax.weights.state_dict import load_torch, to_torch
from rsa_jax.weights.state_dict_files import read_state_dict, write_state_dict

__all__ = ["guess_model", "load_torch", "read_state_dict", "to_torch", "write_state_dict"]
