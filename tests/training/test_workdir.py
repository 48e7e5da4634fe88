"""The record of a run in its workdir: what it refuses, and what older ones mean."""

import json
import os

import jax
import pytest
from ml_collections import ConfigDict

from configs import common
from rsa_jax.settings import default_config
from rsa_jax.training import workdir
from rsa_jax.training.loop import train
from rsa_jax.training.state import with_implementation
from rsa_jax.training.workdir import (
    WorkdirError,
    check_same,
    check_workdir,
    claim_workdir,
    learn_class_names,
    locked,
    read_config,
    read_dataset,
    workdir_path,
)

DATASET = {"class_names": ("a", "b"), "flip_pairs": (), "num_examples": {"train": 5}}


def test_a_workdir_keeps_its_configuration_and_data_set(tmp_path):
    config = default_config()
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
    config = default_config()
    claim_workdir(tmp_path, config, DATASET)
    config.batch_size, config.model.rsa.latent_dim = 32, 4
    with pytest.raises(WorkdirError) as error:
        check_workdir(tmp_path, config, DATASET)
    assert "batch_size: saved 64, current 32" in str(error.value)
    assert "model.rsa.latent_dim: saved None, current 4" in str(error.value)


def test_a_field_that_the_run_did_not_know_has_its_default(tmp_path):
    config = default_config()
    older = config.copy_and_resolve_references()
    del older.init_from, older.matmul_precision, older.data.sampling, older.optimizer.restart_step
    del older.model.self_attention.softmax, older.optimizer.recipe_batch_size
    claim_workdir(tmp_path, older, DATASET)
    check_workdir(tmp_path, config, DATASET)
    assert read_config(tmp_path).data.sampling == "whole"  # used by predictions
    config.init_from = "weights.npz"
    with pytest.raises(WorkdirError, match=r"init_from: saved none, current weights.npz"):
        check_workdir(tmp_path, config, DATASET)


def test_a_new_field_means_its_default(tmp_path, monkeypatch):
    """A field added in a later version must not part existing workdirs from their configuration."""
    config = default_config()
    claim_workdir(tmp_path, config, DATASET)

    def later() -> ConfigDict:
        changed = default_config()
        changed.optimizer.field_of_tomorrow = 0.0
        return changed

    monkeypatch.setattr(workdir, "default_config", later)
    check_workdir(tmp_path, later(), DATASET)
    changed = later()
    changed.optimizer.field_of_tomorrow = 0.9
    with pytest.raises(WorkdirError, match=r"optimizer.field_of_tomorrow: saved 0.0, current 0.9"):
        check_workdir(tmp_path, changed, DATASET)


def test_a_workdir_with_former_names_of_fields(tmp_path):
    config = default_config()
    config.model.transform_blocks, config.data.flip_policy = ((0,), (), (), ()), "swap"
    claim_workdir(tmp_path, config, DATASET)
    content = json.loads((tmp_path / "config.json").read_text())
    content["model"]["positions"] = content["model"].pop("transform_blocks")
    content["data"]["directional"] = content["data"].pop("flip_policy")
    (tmp_path / "config.json").write_text(json.dumps(content))
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    dataset["directional"] = dataset.pop("flip_pairs")
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    check_workdir(tmp_path, config, DATASET)
    assert read_config(tmp_path).data.flip_policy == "swap"
    with pytest.raises(WorkdirError, match="flip_pairs was"):
        check_workdir(tmp_path, config, DATASET | {"flip_pairs": ((0, 1),)})
    config.data.flip_policy = "skip"
    with pytest.raises(WorkdirError, match="data.flip_policy: saved swap, current skip"):
        check_workdir(tmp_path, config, DATASET)


@pytest.mark.parametrize("published", ["data.sampling", "optimizer.restart_step", "matmul_precision"])
def test_an_older_run_resumes_only_with_its_own_settings(tmp_path, published):
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
    config = default_config()
    config.data.name, config.model.num_classes = "ssv1", 2
    claim_workdir(tmp_path, config, dict.fromkeys(DATASET))
    learn_class_names(tmp_path, "ssv1", ("a", "b", "c"))
    learn_class_names(tmp_path, "ssv2", ("e", "f"))  # same number, other names
    assert read_dataset(tmp_path)["class_names"] is None
    learn_class_names(tmp_path, "ssv1", ("a", "b"))
    learn_class_names(tmp_path, "ssv1", ("c", "d"))
    assert read_dataset(tmp_path)["class_names"] == ["a", "b"]


def test_fields_without_an_effect_on_results_may_change(tmp_path):
    config = default_config()
    claim_workdir(tmp_path, config, DATASET)
    config.eval.batch_size, config.log.every_steps, config.data.data_dir = 1, 2, "/elsewhere"
    config.model.implementation, config.model.remat = "conv", True
    check_workdir(tmp_path, config, DATASET)


def test_unknown_data_match_any(tmp_path):
    config = default_config()
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
    config = default_config()
    claim_workdir(tmp_path, config, DATASET)
    content = json.loads((tmp_path / "config.json").read_text())
    content["model"]["rsa"]["form"] = "banded"
    del content["model"]["implementation"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    check_workdir(tmp_path, config, DATASET)
    assert "form" not in read_config(tmp_path).model.rsa
    model = with_implementation(read_config(tmp_path).model, jax.devices()[0])
    assert model.implementation == "cpu"


@pytest.mark.parametrize("name", ["lr[0.01]/a", "a*", "a?b", "a\\b", "a\nb", os.fsdecode(b"a\xff")])
def test_a_name_that_checkpoints_could_not_be_read_from_is_refused(tmp_path, name):
    with pytest.raises(WorkdirError, match=r"workdir: expected a path (without|of printable characters)"):
        train(default_config(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["gs://", "gs://bucket", "http://host/a", "gs:/bucket/a", "az://container/a"])
def test_a_url_that_holds_no_workdir_is_refused(name):
    with pytest.raises(WorkdirError, match="expected a folder, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER, got"):
        workdir_path(name)


@pytest.mark.parametrize("name", ["a b", "ä", "a]b", "{a}", "a%20b", "a:b", "#", "~a", " ", "a=1,b='2'", "C:"])
def test_other_names_are_taken_as_they_are(tmp_path, name):
    assert str(workdir_path(tmp_path / name)) == str(tmp_path / name)
    assert str(workdir_path("gs://bucket/runs/a")) == "gs://bucket/runs/a"


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(WorkdirError, match=f"workdir: expected a folder, got a file: {tmp_path / 'a'}"):
        train(default_config(), tmp_path / "a")


def test_one_training_at_a_time(tmp_path):
    refused = pytest.raises(WorkdirError, match="another process is training in this workdir")
    with locked(workdir_path(tmp_path / "a")), refused, locked(workdir_path(tmp_path / "a")):
        raise AssertionError
    with locked(workdir_path(tmp_path / "a")):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workdir_that_cannot_be_written_to_is_refused_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WorkdirError, match=f"workdir: {tmp_path} cannot be written to"):
        train(default_config(), tmp_path / "a")


def test_a_relative_workdir_in_a_folder_of_such_a_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "lr[0.01]").mkdir()
    monkeypatch.chdir(tmp_path / "lr[0.01]")
    with pytest.raises(WorkdirError, match=r"expected a path without \[: .*lr\[0.01\]/a'"):
        workdir_path("a")


def test_checkpoints_of_an_unknown_run_are_not_resumed(tmp_path):
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    with pytest.raises(WorkdirError, match="holds checkpoints, but config.json is missing"):
        check_workdir(tmp_path, default_config(), DATASET)


@pytest.mark.parametrize("content", ["[]", "{}", '{"data": 3}'])
def test_json_that_is_no_record_of_a_run(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WorkdirError, match="config.json is not the record of a run: expected an object with 'model'"):
        read_config(tmp_path)
