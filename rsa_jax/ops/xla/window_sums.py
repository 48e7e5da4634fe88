"""Sums over windows."""

from rsa_jax.ops.conv import window_sums as window_sums
