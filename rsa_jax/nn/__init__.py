"""RSA, the other transforms, the surrounding layers and the network, as described in the paper."""

from rsa_jax.nn.convolutions import Conv2Plus1D, ShiftedConv, SpaceTimeConv
from rsa_jax.nn.involution import Involution
from rsa_jax.nn.lambda_layer import LambdaLayer
from rsa_jax.nn.network import RSANet, TSNResNet, create_model
from rsa_jax.nn.rsa import RSA, FactorizedRSA
from rsa_jax.nn.self_attention import SelfAttention

__all__ = [
    "RSA",
    "Conv2Plus1D",
    "FactorizedRSA",
    "Involution",
    "LambdaLayer",
    "RSANet",
    "SelfAttention",
    "ShiftedConv",
    "SpaceTimeConv",
    "TSNResNet",
    "create_model",
]
