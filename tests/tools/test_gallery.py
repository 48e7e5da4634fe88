"""Clips with their true and predicted classes."""

import numpy as np
import pytest
from PIL import Image

from rsa_jax.tools import gallery


def colours(path):
    """Whether the image has green text, and whether it has red text."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int).reshape(-1, 3)
    red, green, blue = pixels.T
    return bool(np.any(green - red > 80)), bool(np.any((red - green > 80) & (red - blue > 80)))


@pytest.mark.parametrize(("predicted", "expected"), [((1, 0), (True, False)), ((0, 0), (True, True))])
def test_right_predictions_are_green_and_wrong_ones_red(tmp_path, predicted, expected):
    frames, out = np.full((2, 3, 20, 30, 3), 128, np.uint8), tmp_path / "picture.png"
    probabilities = np.eye(2)[list(predicted)]
    gallery.draw_predictions(frames, np.array([1, 0]), probabilities, ["left", "right"], out)
    assert colours(out) == expected


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(SystemExit, match="holds no run"):
        gallery.main(["--workdir", str(tmp_path), "--out", "x.png"])


def test_an_image_that_cannot_be_written_is_refused_before_the_clips_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="its folder does not exist"):
        gallery.main(["--workdir", str(tmp_path), "--out", "no/such/x.png"])


def test_the_number_of_clips_is_checked(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        gallery.main(["--workdir", str(tmp_path), "--out", "x.png", "--clips", "0"])
    assert "--clips: expected at least 1, got 0" in capsys.readouterr().err
