"""Devices that share a batch compute the same as one device."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import functools, json, sys
import jax
import jax.numpy as jnp
import numpy as np
from rsa_jax import ops
from tests.tiny import FAST_COMPILATION

mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
x, own, shared = (
    np.random.default_rng(0).standard_normal(shape, np.float32)
    for shape in ((int(sys.argv[1]), 3, 2, 4, 2), (27, 2, 3), (27, 1, 3))
)

def both(x, own, shared):
    sums = [ops.window_sums(x, w, kernel_size=(3, 3, 3), implementation="xla") for w in (own, shared)]
    return jnp.sum(jnp.sin(sums[0])) + jnp.sum(jnp.cos(sums[1]))

gradients = jax.jit(jax.grad(both, argnums=(0, 1, 2)), compiler_options=FAST_COMPILATION)
one = gradients(x, own, shared)
with jax.set_mesh(mesh):
    parts = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data"))) if len(x) % 2 == 0 else x
    two = gradients(parts, own, shared)
print(json.dumps([float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in zip(one, two)]))
"""


@pytest.mark.parametrize("clips", [4, 3])
def test_two_devices_compute_the_gradients_of_one(clips):
    """Three clips cannot be split over two devices, so they are not sharded."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE, str(clips)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert max(json.loads(output)) < 1e-5
