import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from rsa_jax.input_pipeline import pipeline
from rsa_jax.input_pipeline.dataset_info import load_info
from rsa_jax.settings import default_config
from rsa_jax.tools import prepare
from tests.preparation.videos import moving_bar, write_folder

SMALL = ("--height", "48", "--width", "64", "--workers", "1")


def run(tmp_path, *args, name="video_folder/mine"):
    return prepare.main(
        [name, "--source", f"{tmp_path / 'videos'}", "--data_dir", f"{tmp_path / 'data'}", *SMALL, *args]
    )


def data(tmp_path, name="video_folder/mine"):
    data = default_config().data
    data.name, data.data_dir, data.num_frames = name, str(tmp_path / "data"), 3
    return data


def test_prepares_videos_and_reports_what_was_left_out(tmp_path, capsys):
    write_folder(tmp_path / "videos", {"walk left": 4, "run": 4})
    (tmp_path / "videos/run/bad one.mp4").write_text("no video")
    assert run(tmp_path, "--max_failed_fraction", "0.2", "--flip_pairs", "walk left=run") == 0
    printed = capsys.readouterr()
    assert "bad one.mp4: cannot be decoded" in printed.out
    assert "left out: 1" in printed.out
    assert "train:" in printed.err  # the progress bar

    (tmp_path / "videos").rename(tmp_path / "gone")  # the source is no longer needed
    info = load_info(data(tmp_path))
    assert info.class_names == ("run", "walk left")
    assert info.flip_pairs == ((1, 0),)
    assert sum(info.num_examples.values()) == 8
    assert info.frame_size == (48, 64)
    assert info.provenance["left_out"][0]["id"] == "run/bad one.mp4"
    assert info.provenance["source"] == str(tmp_path / "videos")
    assert {"rsa-jax", "av", "python"} - info.provenance["versions"].keys() <= {"rsa-jax"}
    batch = next(pipeline.eval_batches(data(tmp_path), split="validation", batch_size=2))
    difference = np.abs(batch["frames"][0].astype(int) - moving_bar(6)[[1, 3, 5]])
    assert difference.mean() < 12


def test_prepared_data_is_kept_unless_overwritten(tmp_path, capsys):
    write_folder(tmp_path / "videos", {"a": 2})
    assert run(tmp_path) == 0
    metadata = tmp_path / "data/video_folder/mine/1.0.0/metadata.json"
    first = metadata.read_text()
    assert run(tmp_path) == 0
    assert "already prepared" in capsys.readouterr().out
    assert metadata.read_text() == first
    write_folder(tmp_path / "videos", {"a": 3, "b": 2})
    assert run(tmp_path, "--overwrite") == 0
    assert json.loads(metadata.read_text())["provenance"]["num_examples"] == {"train": 3, "validation": 2}
    assert load_info(data(tmp_path)).class_names == ("a", "b")


def test_data_sets_stand_side_by_side(tmp_path):
    write_folder(tmp_path / "videos", {"a": 2})
    assert run(tmp_path, name="video_folder") == 0
    assert run(tmp_path, "--quality", "50", name="video_folder/other") == 0
    assert load_info(data(tmp_path, "video_folder")).provenance["jpeg_quality"] == 90
    assert load_info(data(tmp_path, "video_folder/other")).provenance["jpeg_quality"] == 50


@pytest.mark.parametrize("bad, message", [(2, "Split 'train': none of its"), (1, "fraction 0.250")])
def test_too_many_failures_store_nothing(tmp_path, capsys, bad, message):
    write_folder(tmp_path / "videos/train", {"a": 2})
    write_folder(tmp_path / "videos/validation", {"a": 2})
    for i in range(bad):
        (tmp_path / f"videos/train/a/clip {i}.avi").write_text("no video")
    assert run(tmp_path) == 1
    printed = capsys.readouterr()
    assert "clip 0.avi: cannot be decoded" in printed.err
    assert message in printed.err
    assert not (tmp_path / "data/video_folder/mine/1.0.0").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (["video_folder"], "--source is required"),
        (["video_folder", "--source", "/none"], "source /none is not a folder"),
        (["kinetics"], "Unknown data set 'kinetics'"),
        (["motion/large"], "there are motion/default, motion/tiny"),
    ],
)
def test_errors_in_words(tmp_path, capsys, args, message):
    assert prepare.main([*args, "--data_dir", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_motion_by_the_command(tmp_path):
    assert prepare.main(["motion/tiny", "--data_dir", str(tmp_path / "data")]) == 0
    assert load_info(data(tmp_path, "motion/tiny")).num_examples["train"] == 64


def test_killed_preparation_leaves_nothing_that_looks_whole(tmp_path):
    write_folder(tmp_path / "videos", {"a": 60}, num_frames=60)
    home = tmp_path / "data/video_folder/mine"
    command = [sys.executable, "-m", "rsa_jax", "prepare", "video_folder/mine", "--workers", "2"]
    command += ["--source", str(tmp_path / "videos"), "--data_dir", str(tmp_path / "data")]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None and not list(home.glob("unfinished.*/train/*")):
            time.sleep(0.02)
        process.kill()
    assert list(home.glob("unfinished.*"))
    assert not (home / "1.0.0").exists()
    with pytest.raises(RuntimeError, match=r"rsa_jax prepare video_folder/mine"):
        load_info(data(tmp_path))

    assert run(tmp_path) == 0
    assert [path.name for path in sorted(home.iterdir())] == [".lock", "1.0.0"]
    assert sum(load_info(data(tmp_path)).num_examples.values()) == 60


def test_module_imports_no_tensorflow():
    """Worker processes import this module."""
    code = "import sys, rsa_jax.tools.prepare, rsa_jax.preparation.clip; print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_lists_that_name_what_is_not_there(tmp_path, capsys):
    write_folder(tmp_path / "videos", {"a": 3})
    for split, lines in (("train", "a/clip 0.avi 0\na/clip 9.avi 0\n"), ("val", "a/clip 1.avi 0\n")):
        (tmp_path / f"{split}.txt").write_text(lines)
    lists = ["--train_list", f"{tmp_path}/train.txt", "--validation_list", f"{tmp_path}/val.txt"]
    assert run(tmp_path, *lists, "--check") == 1
    assert "a/clip 9.avi" in capsys.readouterr().out
    assert run(tmp_path, *lists) == 1
    assert run(tmp_path, *lists, "--allow_missing") == 0


def test_a_mistyped_name_leaves_nothing(tmp_path):
    assert prepare.main(["kinetics", "--data_dir", str(tmp_path / "data")]) == 1
    assert not (tmp_path / "data").exists()
