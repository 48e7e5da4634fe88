"""Combined scores of several models."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rsa_jax.evaluation.scores import load_scores, save_scores
from rsa_jax.tools.combine import main
from tests.evaluation.test_scores import make_scores

# Two models, each wrong about a different one of three videos, and unsure there.
LABEL = [0, 1, 1]
FIRST = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
SECOND = [[0.4, 0.6], [0.1, 0.9], [0.3, 0.7]]


@pytest.fixture
def workdirs(tmp_path):
    for name, probabilities in (("first", FIRST), ("second", SECOND)):
        (tmp_path / name).mkdir()
        save_scores(tmp_path / name / "scores.npz", make_scores(np.log(probabilities), LABEL))
    return [str(tmp_path / "first"), str(tmp_path / "second")]


def printed(capsys):
    """The printed table of metrics, by row and column."""
    header, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    return {name: dict(zip(header, map(float, values), strict=True)) for name, *values in lines}


def test_metrics_of_each_and_of_all(workdirs, tmp_path, capsys):
    out = tmp_path / "both" / "combined.npz"
    main([*workdirs, "--out", str(out)])
    table = printed(capsys)
    assert list(table) == [*workdirs, "combined"]
    assert [row["top1"] for row in table.values()] == [66.6667, 66.6667, 100]
    assert table["combined"]["num_examples"] == 3
    assert table["combined"]["loss"] == pytest.approx(-np.mean(np.log([0.65, 0.65, 0.75])), abs=1e-4)
    combined = load_scores(out)
    np.testing.assert_allclose(np.exp(combined.log_probabilities), np.add(FIRST, SECOND) / 2)
    written = json.loads(out.with_suffix(".json").read_text())
    assert written == {**combined.metrics(), **combined.origin}
    assert [model["path"] for model in written["models"]] == [f"{workdir}/scores.npz" for workdir in workdirs]
    assert [model["weight"] for model in written["models"]] == [1, 1]


def test_weights_and_what_was_combined_before(workdirs, tmp_path, capsys):
    out = tmp_path / "weighted.npz"
    main([*workdirs, "--weights", "9", "1", "--out", str(out)])
    np.testing.assert_allclose(np.exp(load_scores(out).log_probabilities), (9 * np.array(FIRST) + SECOND) / 10)
    assert printed(capsys)["combined"]["top1"] == 66.6667
    main([str(out), workdirs[1], "--weights", "2", "1"])
    assert printed(capsys)["combined"]["top1"] == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin": {"dataset": "motion", "split": "validation"}}, "dataset is 'motion', not 'video_folder/x'"),
        ({"origin": {"dataset": "video_folder/x", "split": "train"}}, "split is 'train', not 'validation'"),
        ({"label": [0, 1, 0]}, "label of video 2 is 0, not 1"),
        ({"ids": ["video 0", "other", "video 2"]}, "video 1 is 'other', not 'video 1'"),
        ({"class_names": ["class 0", "other"]}, "class 1 is 'other', not 'class 1'"),
        ({"log_probabilities": np.zeros((2, 2)), "label": [0, 1]}, "2 videos, not 3"),
        ({"log_probabilities": np.zeros((3, 3))}, "3 classes, not 2"),
    ],
)
def test_scores_of_something_else_are_refused(workdirs, tmp_path, changes, message):
    other = tmp_path / "other.npz"
    save_scores(other, make_scores(**{"log_probabilities": np.log(SECOND), "label": LABEL} | changes))
    with pytest.raises(SystemExit, match=f"other.npz does not fit .*first/scores.npz: .*{message}"):
        main([workdirs[0], str(other)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["first"], "at least two models"),
        (["first", "second", "--weights", "1"], "expected 2 positive numbers"),
        (["first", "second", "--weights", "1", "-1"], "expected 2 positive numbers"),
        (["first", "second", "--out", "scores.txt"], "ends in .npz"),
        (["first", "second", "--out", "first/scores.npz"], "is one of the models"),
    ],
)
def test_arguments_that_make_no_sense(workdirs, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_workdir_that_was_not_evaluated_is_named(workdirs, tmp_path):
    with pytest.raises(SystemExit, match="scores.npz: no such file; main.py --mode eval writes it"):
        main([workdirs[0], str(tmp_path)])


def test_it_starts_without_jax_and_tensorflow():
    code = "import rsa_jax.tools.combine, sys; print({'jax', 'tensorflow'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert output.stdout.strip() == "set()"
