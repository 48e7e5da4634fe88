"""Summaries of workdirs."""

import json

import pytest

from rsa_jax.files import write_json
from rsa_jax.tools import summary


def test_summary_of_an_evaluated_run(tmp_path, config):
    config.model.num_classes = 2
    write_json(tmp_path / "config.json", config.to_dict())
    text = summary.summarize(tmp_path)
    assert "rsa on motion/tiny, 2 classes" in text
    assert "top-1" not in text
    result = {"top1": 91.25, "top5": 99.0, "num_examples": 32, "step": 8, "split": "validation"}
    (tmp_path / "eval.json").write_text(json.dumps(result))
    (tmp_path / "report.html").touch()
    text = summary.summarize(tmp_path)
    assert "validation top-1 91.2 %, top-5 99.0 % (32 clips, step 8)" in text
    assert f"report        {tmp_path / 'report.html'}" in text


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(SystemExit, match="holds no run"):
        summary.main(["--workdir", str(tmp_path)])
