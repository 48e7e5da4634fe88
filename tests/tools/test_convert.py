"""Conversion of weights into a workdir that is ready for evaluation, and back."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from rsa_jax.evaluation.views import Views
from rsa_jax.preparation.datasets import motion
from rsa_jax.tools import convert
from rsa_jax.training.checkpoints import Checkpoints
from rsa_jax.training.loop import make_run
from rsa_jax.training.models import blank_model, load_model
from rsa_jax.training.state import split_model
from rsa_jax.training.workdir import WorkdirError, read_dataset
from rsa_jax.weights import read_state_dict, to_torch, write_state_dict
from tests.test_main import ROOT
from tests.weights.test_state_dict import assert_equal_models, drawn


@pytest.fixture
def released(tmp_path, config):
    """A weight file that needs other settings than those of the configuration file, these settings, and the model."""
    config.model.update(num_classes=10, width=16, stage_sizes=(2,), transform_blocks=((1,),), stem_kernel=5)
    config.model.rsa.update(kernel_size=(3, 5, 5), num_queries=4, context="V")
    model = drawn(blank_model(config.model))
    path = tmp_path / "released.safetensors"
    write_state_dict(path, {f"module.{name}": array for name, array in to_torch(model).items()})
    return path, config, model


def run(*command, data_dir):
    """Runs a program in a separate process and returns its output."""
    environment = os.environ | {"DATA_DIR": str(data_dir), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_two_commands_evaluate_released_weights(released, tmp_path, data_dir):
    """The first command prints the second, whose result agrees with the model's."""
    path, config, model = released
    workdir = tmp_path / "a workdir"
    said = run("-m", "rsa_jax", "convert", path, workdir, "--config", "tests/tiny.py", data_dir=data_dir)
    assert "bottlenecks (2,) (depth 50), width 16, 10 classes" in said
    assert "RSA in blocks ((1,),): num_queries 4, kernel_size (3, 5, 5), latent_dim channels per query" in said
    python, *command = shlex.split(said.splitlines()[-1])
    assert python == "python"
    assert read_dataset(workdir)["class_names"] is None
    run(*command, data_dir=data_dir)
    # The names come from the data set.
    assert read_dataset(workdir)["class_names"] == list(motion.CLASS_NAMES)
    assert read_dataset(workdir)["provenance"] == {"weights": str(path)}
    result = json.loads((workdir / "eval.json").read_text())
    expected_run = make_run(config)
    params, batch_stats = split_model(model)
    state = expected_run.init()._replace(params=params, batch_stats=batch_stats)
    expected = expected_run.evaluator.score(state, Views()).metrics()
    assert result["num_examples"] == 32
    assert np.isfinite(result["loss"])
    np.testing.assert_allclose(result["loss"], expected["loss"], rtol=1e-5)

    run("-m", "rsa_jax", "convert", workdir, tmp_path / "back.npz", data_dir=data_dir)
    back = read_state_dict(tmp_path / "back.npz")
    for name, array in to_torch(model).items():
        np.testing.assert_array_equal(back[name], array)
    np.testing.assert_array_equal(to_torch(load_model(workdir))["new_fc.bias"], back["new_fc.bias"])


SORTED = ["Bending", "Dropping", "Zooming"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.txt", "\ufeffZooming\r\nBending\nDropping\n\n", ["Zooming", "Bending", "Dropping"]),
        ("labels.CSV", "Zooming\nBending\nDropping\n", SORTED),
        ("labels.json", '{"Bending": "0", "Zooming": "2", "Dropping": "1"}', SORTED),
        ("something-something-v1-labels.csv", "Zooming\nBending\nDropping\n", SORTED),
    ],
)
def test_label_names_in_the_order_of_the_labels(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert convert.read_label_names(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.txt", "a\nb\na\n", "labels.txt: class names occur twice: a"),
        ("labels.json", '{"a": 0, "b": 2}', "labels.json: expected an object .* labels 0, 1, 2"),
        ("labels.txt", "a\n\nb\n", "labels.txt, line 2: expected a class name, got an empty line"),
        ("labels.JSON", '["a"]', "labels.JSON: expected an object"),
        ("labels.json", "{", "labels.json: cannot be read as class names"),
        ("labels.txt", None, "labels.txt: cannot be read as class names"),
    ],
)
def test_bad_label_names_are_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        convert.read_label_names(tmp_path / name)


def test_names_are_kept_and_have_to_be_as_many_as_classes(released, tmp_path):
    path, config, _ = released
    with pytest.raises(ValueError, match="label_names: expected 10 names, one per class of .*released.* got 3"):
        convert.convert_into_workdir(path, tmp_path / "workdir", config, SORTED)
    names = [f"name {i}" for i in range(10)]
    convert.convert_into_workdir(path, tmp_path / "workdir", config, names)
    assert read_dataset(tmp_path / "workdir")["class_names"] == names


def test_a_workdir_that_holds_a_run_is_left_alone(released, tmp_path):
    path, config, model = released
    convert.convert_into_workdir(path, tmp_path / "workdir", config)
    other = tmp_path / "other.npz"
    write_state_dict(other, to_torch(drawn(model, seed=1)))
    for remove in (False, True):
        if remove:
            (tmp_path / "workdir/config.json").rename(tmp_path / "config.json")
        with pytest.raises(WorkdirError, match="holds a run already"):
            convert.convert_into_workdir(other, tmp_path / "workdir", config)
    (tmp_path / "config.json").rename(tmp_path / "workdir/config.json")
    assert_equal_models(load_model(tmp_path / "workdir"), model)


def test_a_conversion_that_fails_leaves_the_workdir_free(released, tmp_path, monkeypatch):
    path, config, _ = released
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", lambda self, state: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            convert.convert_into_workdir(path, tmp_path / "workdir", config)
    convert.convert_into_workdir(path, tmp_path / "workdir", config)


def test_a_file_of_weights_becomes_another(released, tmp_path, data_dir):
    path, _, model = released
    run("-m", "rsa_jax", "convert", path, tmp_path / "other.npz", data_dir=data_dir)
    back = read_state_dict(tmp_path / "other.npz")
    for name, array in to_torch(model).items():
        np.testing.assert_array_equal(back[name], array)


def test_fields_of_the_command_are_those_that_the_file_has_other_values_for(config):
    config.model.rsa.latent_dim = 2
    fields = {"model": {"width": 8, "depth": 18, "rsa": {"latent_dim": None, "num_queries": 2}}}
    assert convert.changed_fields(config, fields) == {"model.depth": 18, "model.rsa.latent_dim": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new.npz", "workdir"], "--config: required to create a workdir"),
        (["new.npz", "workdir", "--config", "tests/tiny.py", "--checkpoint", "best"], "--checkpoint: does not apply"),
        (["new.npz", "other.npz", "--config", "tests/tiny.py"], "--config: does not apply"),
        (["new.npz", "other.npz", "--label_names", "names.txt"], "--label_names: does not apply"),
        ([".", "other.npz", "--label_names", "names.txt"], "--label_names: does not apply"),
        (["new.npz"], "the following arguments are required: TARGET"),
    ],
)
def test_arguments_that_do_not_fit_together(arguments, message, monkeypatch, capsys, data_dir):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    with pytest.raises(SystemExit, match="^2$"):
        convert.main(arguments)
    assert message in capsys.readouterr().err
