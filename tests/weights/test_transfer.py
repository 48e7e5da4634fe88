"""Weights from a workdir are finite, or refused."""

import numpy as np
import pytest

from rsa_jax.training.initial_weights import load_initial_weights
from rsa_jax.training.models import blank_model, save_model
from rsa_jax.weights.transfer import named_weights
from tests.weights.test_state_dict import drawn


def test_a_workdir_whose_training_diverged_is_refused(tmp_path, config):
    config.model.num_classes = 10
    source, model = drawn(blank_model(config.model)), drawn(blank_model(config.model), seed=1)
    save_model(source, config, tmp_path / "good", source="drawn")
    kernel, variance = np.array(source.conv1.kernel[...]), np.array(source.bn1.var[...])
    source.conv1.kernel[...] = np.full_like(kernel, np.nan)
    source.bn1.var[...] = np.where(np.arange(variance.size) == 0, np.inf, variance)
    save_model(source, config, tmp_path / "diverged", source="drawn")

    config.init_from, before = str(tmp_path / "diverged"), named_weights(model)
    message = rf"init_from: .*diverged: NaN or infinite: {kernel.size + 1} of [\d,]+ values, in 2 of \d+ tensors: "
    with pytest.raises(ValueError, match=message) as error:
        load_initial_weights(model, config, [])
    assert f"conv1.kernel ({kernel.size} of {kernel.size})" in str(error.value)
    assert f"bn1.var (1 of {variance.size})" in str(error.value)
    for name, array in named_weights(model).items():
        np.testing.assert_array_equal(array, before[name])

    config.init_from = str(tmp_path / "good")
    load_initial_weights(model, config, [])
    np.testing.assert_array_equal(model.conv1.kernel[...], kernel)
    np.testing.assert_array_equal(model.bn1.var[...], variance)
