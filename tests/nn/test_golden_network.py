"""RSANet-R50 against the published network's logits and stage outputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rsa_jax
from rsa_jax.nn.model_config import model_config
from rsa_jax.training.models import blank_model
from tests import golden_files
from tests.tiny import FAST_COMPILATION

CASES = golden_files.read("network")


def network(dtype):
    """Graph definition and state of the network with the recipe's weights."""
    config = model_config()
    config.num_classes, config.dtype = 174, dtype
    model = blank_model(config)
    rsa_jax.weights.load_torch(model, golden_files.state_dict(golden_files.read("state_dict_shapes")))
    model.eval()
    return nnx.split(model)


def outputs(network, case):
    """Logits and the mean of each stage for a reference case, by name: ours and the published ones."""
    graph, state = network
    golden = golden_files.arrays("network")
    x = golden_files.recipe.clips(f"network.{case}", tuple(CASES[case]["input_shape"]))

    @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
    def run(state, x):
        model = nnx.merge(graph, state)
        return model(x), [jnp.mean(stage, axis=(2, 3), dtype=jnp.float32) for stage in model.feature_maps(x)]

    logits, stages = run(state, x)
    ours = {"logits": logits} | {f"res{i + 2}_mean": stage for i, stage in enumerate(stages)}
    return {name: (np.asarray(array), golden[f"{case}/{name}"]) for name, array in ours.items()}


@pytest.fixture(scope="module")
def float32():
    return network("float32")


@pytest.mark.parametrize("case", CASES)
def test_network_meets_the_published_one(float32, case):
    for ours, published in outputs(float32, case).values():
        np.testing.assert_allclose(ours, published, rtol=0, atol=1e-4 * np.max(np.abs(published)))


def test_bfloat16_stays_near(record_property):
    """The error is about bfloat16's rounding, 2^-8, times the square root of the number of layers."""
    for name, (ours, published) in outputs(network("bfloat16"), "b").items():
        error = np.linalg.norm(ours - published) / np.linalg.norm(published)
        record_property(f"bfloat16_error_{name}", float(error))
        print(f"{name}: {error:.4f}")
        assert error < 0.01, name
