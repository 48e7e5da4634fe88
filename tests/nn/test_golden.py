"""The layer against the outputs and gradients of the published one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rsa_jax
from rsa_jax import ops
from rsa_jax.weights.state_dict import torch_entries
from tests import golden_files
from tests.tiny import FAST_COMPILATION

CASES = golden_files.read("rsa_layer")


def relative_error(actual, expected):
    return np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize("implementation", ops.IMPLEMENTATIONS)
@pytest.mark.parametrize("case", CASES)
def test_layer_meets_the_published_one(case, implementation):
    settings, golden = CASES[case], golden_files.arrays("rsa_layer")
    if implementation == "reference" and case == "paper_window":
        pytest.skip("takes gigabytes in this one; the others are compared with it on smaller maps")
    layer = rsa_jax.RSA(**golden_files.layer_arguments(settings), implementation=implementation, rngs=nnx.Rngs(0))
    rsa_jax.weights.load_torch(layer, golden_files.state_dict(settings["state_dict"], prefix=f"{case}."))
    x = golden_files.recipe.clips(f"{case}.x", tuple(settings["input_shape"]))
    cotangent = golden_files.recipe.clips(f"{case}.cotangent", tuple(settings["input_shape"]))

    graph, params = nnx.split(layer)

    @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
    def outputs(params, x):
        y, pullback = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
        return y, *pullback(jnp.asarray(cotangent))

    y, grad_params, grad_x = outputs(params, x)
    assert relative_error(y, golden[f"{case}/y"]) < 1e-5
    assert relative_error(grad_x, golden[f"{case}/grad_x"]) < 1e-5
    entries = list(torch_entries(nnx.merge(graph, grad_params)))
    assert {entry.name for entry in entries} == set(settings["state_dict"])
    for entry in entries:
        expected = golden[f"{case}/grad/{entry.name}"].reshape(entry.view).transpose(entry.order)
        assert relative_error(entry.variable[...], expected.reshape(entry.variable.shape)) < 1e-5, entry.name
