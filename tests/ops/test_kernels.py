"""Kernels for TPUs and GPUs, interpreted: random settings and sizes against Eq. 11, and several devices."""

import json
import os
import subprocess
import sys

import pytest

from tests.ops.drawn import assert_same, draw, random_case, run

BOTH = pytest.mark.parametrize("implementation", ["tpu", "gpu"])


@BOTH
@pytest.mark.parametrize("seed", range(6))
def test_drawn_sizes_and_settings(seed, implementation):
    shape, kernel_size, latent, kernel, context = random_case(seed)
    arguments = draw(seed, shape, kernel_size, latent, kernel, context)
    assert_same(run(implementation, arguments, kernel_size), run("reference", arguments, kernel_size), 1e-5)


@BOTH
@pytest.mark.parametrize(("batch", "frames"), [(3, 48), (2, 70), (1, 128), (130, 1)])
def test_windows_do_not_reach_into_other_clips(batch, frames, implementation):
    """On a TPU, two clips of 48 frames share 128 lanes, with some left over; the third has its own lanes."""
    kernel_size = (5, 1, 1)
    arguments = draw(1, (batch, frames, 1, 1, 1, 2), kernel_size, 2)
    assert_same(run(implementation, arguments, kernel_size), run("reference", arguments, kernel_size), 1e-5)


CODE = """
import functools, json, re
import jax
import numpy as np
from rsa_jax import ops
from tests.ops.drawn import FAST_COMPILATION, draw

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
whole, parts = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))
*maps, weights = draw(0, (8, 2, 2, 3, 2, 3), (3, 3, 1), 2)

KINDS = {"tpu": "TPU v5 lite", "cuda": "NVIDIA H100"}

def gradients(implementation, maps, weights):
    transform = functools.partial(ops.rsa, kernel_size=(3, 3, 1), implementation=implementation)
    return jax.grad(lambda maps, weights: (transform(*maps, weights) ** 2).sum(), argnums=(0, 1))(maps, weights)

def lowered(function, platform, axes, clips):
    *maps, weights = draw(0, (clips, 2, 2, 3, 2, 3), (3, 3, 1), 2)
    device = jax.sharding.AbstractDevice(KINDS[platform], None, platform)
    types = (jax.sharding.AxisType.Auto,) * len(axes)
    mesh = jax.sharding.AbstractMesh(tuple(axes.values()), tuple(axes), types, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        text = jax.jit(function).trace(maps, weights).lower(lowering_platforms=(platform,)).as_text()
    return len(re.findall(r"custom_call @(tpu_custom_call|__gpu\\$xla.gpu.triton)\\(", text))

expected = jax.jit(functools.partial(gradients, "xla"), compiler_options=FAST_COMPILATION)(maps, weights)
found = {}
for name, platform in (("tpu", "tpu"), ("gpu", "cuda")):
    function = functools.partial(gradients, name)
    jitted = jax.jit(function, in_shardings=(parts, whole), out_shardings=(parts, whole))
    with jax.set_mesh(mesh):
        program = jitted.lower(maps, weights).compile(compiler_options=FAST_COMPILATION)
        actual = program(jax.device_put(maps, parts), jax.device_put(weights, whole))
    errors = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(b))), actual, expected)
    exchanges = re.findall(r" (all-\\w[\\w-]*|collective-[\\w-]+|reduce-scatter)\\(", program.as_text())
    cases = ({"data": 8}, 3), ({"data": 2, "model": 4}, 4), ({"model": 8}, 4)
    kernels = [lowered(function, platform, *case) for case in cases]
    found[name] = [kernels, max(jax.tree.leaves(errors)), sorted(set(exchanges))]
print(json.dumps(found))
"""


def test_eight_devices_only_add_up_gradients_of_weights():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    output = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    for name, (kernels, error, exchanges) in json.loads(output.stdout.splitlines()[-1]).items():
        # The forward pass is one kernel. Its gradients are one on a TPU; on a GPU, they are one at the positions, two
        # for maps and two for weights.
        assert kernels == [2 if name == "tpu" else 6] * 3
        assert error < 1e-5
        assert exchanges == ["all-reduce"]
