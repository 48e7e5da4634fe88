"""Every public data set in miniature, from its official layout to a resumed run and its multi-view evaluation."""

import json

import pytest

from rsa_jax.evaluation.evaluator import evaluate_checkpoint
from rsa_jax.tools import prepare
from rsa_jax.training import loop
from rsa_jax.training.loop import train
from tests.preparation.datasets.miniatures import MINIATURES
from tests.tiny import tiny_config


@pytest.mark.parametrize("name", MINIATURES)
def test_prepare_train_resume_and_evaluate(tmp_path, monkeypatch, name):
    MINIATURES[name][0](tmp_path / "source")
    folders = ["--source", str(tmp_path / "source"), "--data_dir", str(tmp_path / "data")]
    small = ["--height", "36", "--width", "48", "--workers", "1", "--allow_missing"]
    assert prepare.main([name, *folders, *small]) == 0
    config = tiny_config(tmp_path / "data")
    config.data.name, config.batch_size = name, 8
    config.model.num_classes = 400  # the same for all, so that one program serves all
    config.eval.update(batch_size=4, num_clips=2, num_crops=3, checkpoint="latest")
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopSignal, "requested", lambda self, step: step == 1)
        train(config, tmp_path / "workdir")
    train(config, tmp_path / "workdir")
    result = evaluate_checkpoint(config, tmp_path / "workdir")
    assert (result["num_examples"], result["step"], result["views"]) == (4, 4, 6)
    lines = [json.loads(line) for line in (tmp_path / "workdir/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
