"""What can stand in a block of the network: the paper's equations, and the Flax layers over them."""

from rsa_jax.transforms.convolutions import Conv2Plus1D, ShiftedConv, SpaceTimeConv
from rsa_jax.transforms.involution import Involution
from rsa_jax.transforms.lambda_layer import LambdaLayer
from rsa_jax.transforms.rsa import RSA, FactorizedRSA
from rsa_jax.transforms.self_attention import SelfAttention

__all__ = [
    "RSA",
    "Conv2Plus1D",
    "FactorizedRSA",
    "Involution",
    "LambdaLayer",
    "SelfAttention",
    "ShiftedConv",
    "SpaceTimeConv",
]
