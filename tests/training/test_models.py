"""Initial weights from a file."""

import logging

import numpy as np
import pytest

from rsa_jax.training.loop import train
from rsa_jax.training.models import blank_model, load_model
from rsa_jax.training.run import make_run
from rsa_jax.training.state import merge_model
from rsa_jax.weights import to_torch, write_state_dict
from tests.weights.test_state_dict import drawn


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO, logger="absl")
    return caplog


def initial_model(config):
    run = make_run(config)
    state = run.initial_state()
    return merge_model(run.model.train, state.params, state.batch_stats)


def save(path, config, seed=0, **fields):
    model = config.model.copy_and_resolve_references()
    model.update(fields)
    state_dict = to_torch(drawn(blank_model(model), seed))
    write_state_dict(path, state_dict)
    config.init_from = str(path)
    return state_dict


def test_a_run_starts_from_the_weights_of_a_file(tmp_path, config):
    state_dict = save(tmp_path / "weights.npz", config, num_classes=10)
    for name, array in to_torch(initial_model(config)).items():
        np.testing.assert_array_equal(array, state_dict[name])


def test_the_classifier_of_other_classes_stays_out_and_that_is_said(tmp_path, config, messages):
    state_dict = save(tmp_path / "weights.safetensors", config, num_classes=7)
    back = to_torch(initial_model(config))
    np.testing.assert_array_equal(back["base_model.conv1.weight"], state_dict["base_model.conv1.weight"])
    assert back["new_fc.weight"].shape == (10, 32, 1)
    assert "but for the classifier, which has 7 classes there and 10 here" in messages.text


def test_weights_that_do_not_fit_leave_the_workdir_free(tmp_path, config):
    save(tmp_path / "weights.npz", config, num_classes=10, width=16)
    with pytest.raises(ValueError, match=r"wrong shape: base_model.conv1.weight: expected \(8, 3, 1, 3, 3\)"):
        train(config, tmp_path / "workdir")
    config.init_from = str(tmp_path / "elsewhere.npz")
    with pytest.raises(ValueError, match=r"elsewhere.npz: no such file"):
        train(config, tmp_path / "workdir")
    config.init_from = None
    train(config, tmp_path / "workdir")


def test_a_finished_run_needs_its_initial_weights_no_more(tmp_path, config):
    config.epochs, config.optimizer.warmup_epochs = 1, 0
    path = tmp_path / "weights.npz"
    save(path, config, num_classes=10)
    train(config, tmp_path / "workdir")
    path.unlink()
    train(config, tmp_path / "workdir")
    assert load_model(tmp_path / "workdir", "latest").fc.out_features == 10
