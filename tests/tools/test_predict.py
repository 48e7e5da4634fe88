"""Predictions for video files, against the evaluation of a data set prepared from them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from rsa_jax.evaluation.evaluator import evaluate_checkpoint
from rsa_jax.evaluation.inference import Predictor
from rsa_jax.evaluation.scores import load_scores
from rsa_jax.evaluation.views import View
from rsa_jax.files import write_json
from rsa_jax.input_pipeline import pipeline
from rsa_jax.input_pipeline.dataset_info import load_info
from rsa_jax.nn.network import create_model
from rsa_jax.tools import predict, prepare, visualize
from rsa_jax.training.models import save_model
from tests.preparation.videos import moving_bar, write_video
from tests.test_precision import products
from tests.tiny import tiny_config

CLASSES = ["left", "right"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Configuration and workdir of a network with random weights, evaluated on the videos beside the workdir."""
    root = tmp_path_factory.mktemp("predict")
    for split, lengths in {"train": [9], "validation": [9, 22, 3]}.items():
        for i, length in enumerate(lengths):
            bar = moving_bar(length)
            for name, frames in zip(CLASSES, (bar[:, :, ::-1], bar), strict=True):
                write_video(root / "videos" / split / name / f"clip {i}.avi", frames)
    stored = ["--height", "40", "--width", "56", "--quality", "60", "--stride", "2", "--workers", "1"]
    assert prepare.main(["video_folder/x", "--source", str(root / "videos"), "--data_dir", str(root), *stored]) == 0
    config = tiny_config(root)
    config.data.name, config.batch_size = "video_folder/x", 2
    config.model.num_classes, config.model.zero_init = 2, False
    config.eval.num_clips = 2
    save_model(create_model(config.model, rngs=nnx.Rngs(0)), config, root / "workdir", source="drawn")
    write_json(root / "workdir" / "dataset.json", dataclasses.asdict(load_info(config.data)))
    evaluate_checkpoint(config, root / "workdir")
    return config, root / "workdir"


def run(workdir, *arguments):
    """Exit status and the JSON output."""
    out = workdir.parent / "out.json"
    flags = ["--workdir", str(workdir), "--workers", "1", "--json", str(out)]
    return predict.main([*map(str, arguments), *flags]), json.loads(out.read_text())


def probabilities(part):
    return [rank["probability"] for rank in sorted(part["classes"], key=lambda rank: rank["class"])]


def test_a_prepared_file_gets_the_probabilities_of_the_evaluation(evaluated, capsys, tmp_path):
    _, workdir = evaluated
    folder, scores = workdir.parent / "videos/validation", load_scores(workdir / "scores.npz")
    status, written = run(workdir, folder, "--batch_size", 4, "--out", tmp_path / "strips")
    assert (status, written["failed"]) == (0, [])
    paths = [str(folder / name) for name in scores.ids]
    assert [video["path"] for video in written["videos"]] == paths
    expected = np.exp(scores.log_probabilities)
    assert np.ptp(expected[:, 0]) > 1e-3  # the videos differ by more than rounding
    np.testing.assert_allclose([probabilities(video["chunks"][0]) for video in written["videos"]], expected, rtol=1e-5)
    ranks = written["videos"][0]["chunks"][0]["classes"]
    assert ranks[0]["probability"] >= ranks[1]["probability"]
    assert [rank["name"] for rank in ranks] == [CLASSES[rank["class"]] for rank in ranks]
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in paths] == paths
    assert f"{ranks[0]['name']}" in printed[1]
    assert f"{100 * ranks[0]['probability']:.2f} %" in printed[1]
    assert len(list((tmp_path / "strips").glob("*.png"))) == 6


def test_the_pixels_are_those_of_the_prepared_data_set(evaluated):
    config, workdir = evaluated
    batch = next(pipeline.eval_batches(config.data, split="validation", batch_size=6, num_clips=2))
    reading = Predictor(workdir, "latest").reading
    for path, frames in zip(batch["id"], batch["frames"], strict=True):
        (chunk,) = predict.try_chunks(workdir.parent / "videos/validation" / path.decode(), reading)
        np.testing.assert_array_equal(chunk.frames(), frames)


def test_a_long_video_in_chunks(evaluated, tmp_path, capsys):
    """22 frames, of which every second one is kept; against a prediction from the same frames."""
    _, workdir = evaluated
    video = workdir.parent / "videos/validation/right/clip 1.avi"
    gif = tmp_path / "parts.gif"
    status, written = run(workdir, video, "--chunk", 4, "--hop", 3, "--out", gif)
    parts = written["videos"][0]["chunks"]
    assert status == 0
    assert [(part["start"], part["stop"]) for part in parts] == [(0, 4), (3, 7), (6, 10), (7, 11)]
    assert parts[1]["seconds"] == pytest.approx([3 / 6, 7 / 6])
    assert "frames 3 to 6, 0.5 to 1.2 s" in capsys.readouterr().out
    assert Image.open(gif).n_frames == 4 * 4
    predictor = Predictor(workdir)
    (whole,) = predict.try_chunks(video, dataclasses.replace(predictor.reading, num_frames=11, num_clips=1))
    chosen = [3, 4, 5, 6] * 2  # a part has as many frames as a clip, so its two clips are equal
    np.testing.assert_allclose(probabilities(parts[1]), predictor(whole.frames()[None, chosen])[0], rtol=1e-5)


def test_a_workdir_with_the_published_sampling_and_precision(evaluated, tmp_path, capsys):
    """A video with fewer frames than a clip shows only its first frame, in evaluation and in prediction."""
    config, whole = evaluated
    config = config.copy_and_resolve_references()
    config.data.sampling, config.matmul_precision = "published", "float32"
    workdir = tmp_path / "published"
    shutil.copytree(whole, workdir)
    write_json(workdir / "config.json", config.to_dict())
    result = evaluate_checkpoint(config, workdir)
    assert (result["sampling"], result["matmul_precision"]) == ("published", "float32")
    scores = load_scores(workdir / "scores.npz")
    short = next(i for i, name in enumerate(scores.ids) if "right/clip 2" in name)
    assert abs(scores.log_probabilities - load_scores(whole / "scores.npz").log_probabilities)[short].max() > 1e-4
    video = whole.parent / "videos/validation/right/clip 2.avi"
    capsys.readouterr()
    _, content = run(workdir, video)
    np.testing.assert_allclose(
        probabilities(content["videos"][0]["chunks"][0]), np.exp(scores.log_probabilities[short]), rtol=1e-5
    )
    assert (
        "at most 4 frames; with data.sampling=published, the network sees only the first one" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match=r"--chunk: expected more than 4 frames, got 4: with data.sampling=published"):
        run(workdir, video, "--chunk", 4)
    predictor = Predictor(workdir)
    lowered = predictor._predict.lower(*predictor._arrays, np.zeros((1, 8, 40, 56, 3), np.uint8), View())
    assert all(line.count("HIGHEST") == 2 for line in products(lowered))


def test_kernels_in_a_video_file(evaluated, tmp_path, capsys):
    _, workdir = evaluated
    out, video = tmp_path / "kernels.png", workdir.parent / "videos/validation/right/clip 1.avi"
    flags = ["--workdir", str(workdir), "--out", str(out)]
    visualize.main([*flags, str(video), "--position", "3,0,1"])
    assert "Kernels of stages.0.0.conv2 for clip 1.avi" in capsys.readouterr().out
    width, height = Image.open(out).size
    assert width > height > 300
    with pytest.raises(SystemExit, match="nowhere.avi: cannot be decoded"):
        visualize.main([*flags, "nowhere.avi"])
    with pytest.raises(SystemExit, match=r"--layer: expected one of 0 \(stages.0.0.conv2\), got 'conv9'"):
        visualize.main([*flags, str(video), "--layer", "conv9"])
    with pytest.raises(SystemExit):
        visualize.main([*flags, str(video), "--position", "1,2"])
    assert "expected FRAME,ROW,COLUMN, three numbers from 0, got '1,2'" in capsys.readouterr().err


def test_what_cannot_be_read_stops_nothing(evaluated, tmp_path, capsys):
    _, workdir = evaluated
    (tmp_path / "bad one.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    good = workdir.parent / "videos/validation/left/clip 0.avi"
    bad = [tmp_path / "bad one.mp4", tmp_path / "empty", tmp_path / "nowhere.avi"]
    status, written = run(workdir, *bad, good, good)
    assert status == 1
    assert [video["path"] for video in written["videos"]] == [str(good)]
    assert [reason.startswith(f"{path}: ") for reason, path in zip(written["failed"], bad, strict=True)] == [True] * 3
    assert "3 of 4 videos could not be read" in capsys.readouterr().err
    assert run(workdir, bad[0], "--out", tmp_path / "nothing.gif")[0] == 1
    assert not (tmp_path / "nothing.gif").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "{}/file.mp4"], "expected a folder, or a file that ends with .gif, got"),
        (["--out", "{}/strip.png"], "expected a folder, or a file that ends with .gif, got"),
        (["--out", "{}/nowhere/x.GIF"], "its folder does not exist"),
        (["--json", "{}"], "is a folder"),
        (["--json", "{}/nowhere/x.json"], "its folder does not exist"),
    ],
)
def test_outputs_are_checked_first(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        predict.main(["video.mp4", "--workdir", "x", *(flag.format(tmp_path) for flag in flags)])
    assert message in capsys.readouterr().err


def test_odd_names_stop_nothing(evaluated, tmp_path):
    """A name that is not UTF-8 and a long one, in an image and in a GIF."""
    _, workdir = evaluated
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in (os.fsdecode(b"\xff.avi"), f"{'n' * 240}.avi"):
        write_video(videos / "plain.avi", moving_bar(9))
        (videos / "plain.avi").rename(videos / name)
    for out in (tmp_path / "strips", tmp_path / "x.gif"):
        status, written = run(workdir, videos, "--out", out)
        assert (status, len(written["videos"])) == (0, 2)
        assert out.exists()


def test_animations_of_many_chunks_show_some(evaluated, tmp_path, monkeypatch, capsys):
    _, workdir = evaluated
    monkeypatch.setattr(predict, "MOST_CLIPS", 2)
    video = workdir.parent / "videos/validation/right/clip 1.avi"
    run(workdir, video, "--chunk", 4, "--hop", 3, "--out", tmp_path / "x.gif")
    assert Image.open(tmp_path / "x.gif").n_frames == 2 * 4
    assert "shows 2 of 4 chunks" in capsys.readouterr().err


def test_a_converted_model_does_not_know_its_data(evaluated, tmp_path):
    config, _ = evaluated
    save_model(create_model(config.model, rngs=nnx.Rngs(0)), config, tmp_path / "workdir", source="drawn")
    predictor = Predictor(tmp_path / "workdir")
    assert predictor.class_names == ["class 0", "class 1"]
    assert (predictor.reading.size, predictor.reading.quality, predictor.reading.stride) == ((240, 320), 90, 1)


@pytest.mark.parametrize("flag", ["--top", "--chunk", "--hop", "--batch_size", "--workers"])
def test_numbers_are_checked(flag, capsys):
    with pytest.raises(SystemExit):
        predict.main(["video.mp4", "--workdir", "x", flag, "0"])
    assert f"{flag}: expected at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict.main(["video.mp4", "--workdir", "x", "--hop", "3"])
    assert "--hop: needs --chunk" in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(SystemExit, match="holds no run"):
        predict.main(["video.mp4", "--workdir", str(tmp_path)])


def test_worker_processes_import_no_jax():
    code = "import sys, rsa_jax.tools.predict; print({'jax', 'tensorflow', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
