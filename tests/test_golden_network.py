"""RSANet-R50 against the published network's logits and stage outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rsa_jax
from configs.common import model_config
from tests import golden_files

CASES = golden_files.read("network")


@pytest.fixture(scope="module")
def published():
    """Graph definition and state of the network with the recipe's weights."""
    config = model_config()
    config.num_classes = 174
    model = rsa_jax.create_model(config, rngs=nnx.Rngs(0))
    rsa_jax.weights.load_torch(model, golden_files.state_dict(golden_files.read("state_dict_shapes")))
    model.eval()
    return nnx.split(model)


@pytest.mark.parametrize("case", CASES)
def test_network_meets_the_published_one(published, case):
    graph, state = published
    golden, x = (
        golden_files.arrays("network"),
        golden_files.recipe.clips(f"network.{case}", tuple(CASES[case]["input_shape"])),
    )

    @jax.jit
    def run(state, x):
        model = nnx.merge(graph, state)
        return model(x), [jnp.mean(stage, axis=(2, 3)) for stage in model.feature_maps(x)]

    logits, stages = run(state, x)
    expected = {"logits": logits} | {f"res{i + 2}_mean": stage for i, stage in enumerate(stages)}
    for name, actual in expected.items():
        reference = golden[f"{case}/{name}"]
        np.testing.assert_allclose(actual, reference, rtol=0, atol=1e-4 * np.max(np.abs(reference)))
