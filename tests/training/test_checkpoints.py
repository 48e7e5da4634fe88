"""Workdirs: what they keep, restore and refuse."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from rsa_jax.training.checkpoints import (
    Checkpoints,
    WorkdirError,
    check_same,
    check_workdir,
    claim_workdir,
    learn_class_names,
    read_config,
    read_dataset,
)
from rsa_jax.training.state import TrainState, with_implementation

DATASET = {"class_names": ("a", "b"), "flip_pairs": (), "num_examples": {"train": 5}}


def state(step):
    params = {"stages": {0: {1: {"kernel": jnp.full((2, 3), step + 0.5)}}}}
    return TrainState(jnp.asarray(step), params, {"mean": jnp.ones(2)}, ({"trace": jnp.zeros(3)},))


@pytest.fixture
def checkpoints(tmp_path):
    manager = Checkpoints(tmp_path, common.get_config().checkpoint)
    yield manager
    manager.close()


def test_the_best_and_the_latest_are_kept(checkpoints):
    for step, top1 in ((1, 10.0), (2, 30.0), (3, None), (4, 20.0), (5, None)):
        checkpoints.save(state(step), None if top1 is None else {"top1": top1})
    checkpoints.close()
    assert checkpoints.steps() == [2, 5]
    assert (checkpoints.find("best"), checkpoints.find("latest"), checkpoints.find("2")) == (2, 5, 2)


def test_a_state_comes_back_as_it_was(tmp_path, checkpoints):
    checkpoints.save(state(3))
    checkpoints.close()
    again = Checkpoints(tmp_path, common.get_config().checkpoint)
    restored = again.restore(jax.eval_shape(lambda: state(3)), 3)
    assert jax.tree.structure(restored) == jax.tree.structure(state(3))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    again.close()


def test_checkpoints_that_are_not_there(checkpoints):
    with pytest.raises(WorkdirError, match="holds no checkpoint"):
        checkpoints.find("best")
    checkpoints.save(state(3))
    with pytest.raises(WorkdirError, match=r"no checkpoint for step 4; available: \[3\]"):
        checkpoints.restore(state(4), 4)
    with pytest.raises(WorkdirError, match="checkpoint: expected"):
        checkpoints.find("newest")


def test_a_workdir_keeps_its_configuration_and_data_set(tmp_path):
    config = common.get_config()
    check_workdir(tmp_path, config, DATASET)
    claim_workdir(tmp_path, config, DATASET)
    check_same(read_config(tmp_path), config, tmp_path)
    assert read_dataset(tmp_path)["class_names"] == ["a", "b"]
    check_workdir(tmp_path, config, DATASET)
    with pytest.raises(WorkdirError, match=r"was created with different data \(dataset.json\): class_names was"):
        check_workdir(tmp_path, config, DATASET | {"class_names": ("b", "a")})
    with pytest.raises(WorkdirError, match="num_examples was"):
        check_workdir(tmp_path, config, DATASET | {"num_examples": {"train": 6}})


def test_a_workdir_of_another_configuration_is_refused(tmp_path):
    config = common.get_config()
    claim_workdir(tmp_path, config, DATASET)
    config.batch_size, config.model.rsa.latent_dim = 32, 4
    with pytest.raises(WorkdirError) as error:
        check_workdir(tmp_path, config, DATASET)
    assert "batch_size: saved 64, current 32" in str(error.value)
    assert "model.rsa.latent_dim: saved None, current 4" in str(error.value)


def test_a_field_that_is_newer_than_the_run_does_not_part_it_from_its_configuration(tmp_path):
    config = common.get_config()
    older = config.copy_and_resolve_references()
    del older.init_from, older.matmul_precision, older.data.sampling, older.optimizer.restart_step
    del older.model.self_attention.softmax, older.optimizer.recipe_batch_size
    claim_workdir(tmp_path, older, DATASET)
    check_workdir(tmp_path, config, DATASET)
    assert read_config(tmp_path).data.sampling == "whole"  # used by predictions
    config.init_from = "weights.npz"
    with pytest.raises(WorkdirError, match=r"init_from: saved none, current weights.npz"):
        check_workdir(tmp_path, config, DATASET)


@pytest.mark.parametrize("published", ["data.sampling", "optimizer.restart_step", "matmul_precision"])
def test_a_run_of_before_goes_on_as_it_was_alone(tmp_path, published):
    """The older run trained without settings that the published recipes have now."""
    config = common.get_published_config()
    older = config.copy_and_resolve_references()
    older.init_from = None
    del older.data.sampling, older.optimizer.restart_step, older.matmul_precision
    claim_workdir(tmp_path, older, DATASET)
    with pytest.raises(WorkdirError, match=f"{published}: saved .*, current .*"):
        check_workdir(tmp_path, config, DATASET)
    config.update_from_flattened_dict(
        {
            "init_from": "none",
            "data.sampling": "whole",
            "optimizer.restart_step": False,
            "matmul_precision": "default",
        }
    )
    check_workdir(tmp_path, config, DATASET)


def test_class_names_are_learned_once_and_from_the_data_set_of_the_workdir(tmp_path):
    config = common.get_config()
    config.data.name, config.model.num_classes = "ssv1", 2
    claim_workdir(tmp_path, config, dict.fromkeys(DATASET))
    learn_class_names(tmp_path, "ssv1", ("a", "b", "c"))
    learn_class_names(tmp_path, "ssv2", ("e", "f"))  # same number, other names
    assert read_dataset(tmp_path)["class_names"] is None
    learn_class_names(tmp_path, "ssv1", ("a", "b"))
    learn_class_names(tmp_path, "ssv1", ("c", "d"))
    assert read_dataset(tmp_path)["class_names"] == ["a", "b"]


def test_what_does_not_change_results_may_change(tmp_path):
    config = common.get_config()
    claim_workdir(tmp_path, config, DATASET)
    config.eval.batch_size, config.log.every_steps, config.data.data_dir = 1, 2, "/elsewhere"
    config.model.implementation, config.model.remat = "conv", True
    check_workdir(tmp_path, config, DATASET)


def test_data_of_which_nothing_is_known_fit_any(tmp_path):
    config = common.get_config()
    claim_workdir(tmp_path, config, dict.fromkeys(DATASET))
    check_workdir(tmp_path, config, DATASET)
    claim_workdir(tmp_path, config, DATASET)  # as training does; from here on the data are known
    with pytest.raises(WorkdirError, match="class_names was"):
        check_workdir(tmp_path, config, DATASET | {"class_names": ("b", "a")})


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(WorkdirError, match="holds no run: config.json is missing"):
        read_config(tmp_path)


def test_a_workdir_from_before_implementations_had_names(tmp_path):
    """Its configuration selects RSA's implementation by a field that no longer exists."""
    config = common.get_config()
    claim_workdir(tmp_path, config, DATASET)
    content = json.loads((tmp_path / "config.json").read_text())
    content["model"]["rsa"]["form"] = "banded"
    del content["model"]["implementation"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    check_workdir(tmp_path, config, DATASET)
    assert "form" not in read_config(tmp_path).model.rsa
    model = with_implementation(read_config(tmp_path).model, jax.devices()[0])
    assert model.implementation == "cpu"
