"""Programs that show the results of a run."""

import json

import numpy as np
import pytest
from PIL import Image

from rsa_jax.files import write_json
from rsa_jax.pictures.clips import Row, annotate, draw_rows, save_animation
from rsa_jax.tools import predictions, summary


def colours(path):
    """Whether the image has green text, and whether it has red text."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int).reshape(-1, 3)
    red, green, blue = pixels.T
    return bool(np.any(green - red > 80)), bool(np.any((red - green > 80) & (red - blue > 80)))


@pytest.mark.parametrize(("predicted", "expected"), [((1, 0), (True, False)), ((0, 0), (True, True))])
def test_right_predictions_are_green_and_wrong_ones_red(tmp_path, predicted, expected):
    frames, out = np.full((2, 3, 20, 30, 3), 128, np.uint8), tmp_path / "picture.png"
    probabilities = np.eye(2)[list(predicted)]
    predictions.draw_predictions(frames, np.array([1, 0]), probabilities, ["left", "right"], out)
    assert colours(out) == expected


def test_long_titles_are_folded_beside_the_frames(tmp_path):
    """Class names may be long, and contain text that matplotlib would parse as math."""
    frames = np.full((3, 20, 30, 3), (0, 0, 255), np.uint8)
    pictures = []
    for title in ("$^$", "Pretending to put something $^$ " * 20):
        draw_rows([Row(title, "black", frames)] * 2, tmp_path / "picture.png")
        pictures.append(np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int))
    short, long = pictures
    assert long.shape[0] > 1.5 * short.shape[0]
    assert long.shape[1] == short.shape[1]
    blue = [np.sum(np.all(picture == (0, 0, 255), axis=-1)) for picture in pictures]
    assert blue[1] > 0.99 * blue[0] > 0.5 * short[..., 0].size
    assert (long[:, :3] == 255).all()
    assert (long[:, -3:] == 255).all()


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


def test_frames_beside_bars(tmp_path):
    """Bars are longer for larger probabilities; the images are also saved as an animation."""
    frames = np.full((2, 20, 30, 3), (0, 255, 0), np.uint8)
    images = annotate(frames, "a_long_name_without_spaces" * 5, [("$^$ " * 40, 1.0), ("twice", 0.5), ("twice", 0.0)])
    assert [image.shape for image in images] == [(240, 720, 3)] * 2
    assert (images[0][:, :360] == (0, 255, 0)).all()
    bars = np.sum(np.abs(images[0][:, 360:].astype(int) - (158, 197, 244)).max(axis=-1) < 8, axis=1)
    widths = np.unique(bars[bars > 20])
    assert widths.max() > 300 > 180 > np.median(bars[120:160]) > 120
    save_animation(images + [255 - image for image in images], tmp_path / "moving.gif")
    assert Image.open(tmp_path / "moving.gif").size == (720, 240)


@pytest.mark.parametrize("program", [predictions, summary])
def test_a_folder_without_a_run_is_named(tmp_path, program):
    flags = ["--workdir", str(tmp_path)] + (["--out", "x.png"] if program is predictions else [])
    with pytest.raises(SystemExit, match="holds no run"):
        program.main(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "no/such/x.png"], "its folder does not exist"),
        (["--out", "x.png", "--clips", "0"], "--clips: expect"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_clips_are_read(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        predictions.main(["--workdir", str(tmp_path), *flags])
