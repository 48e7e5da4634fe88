"""Figures and animations of clips."""

import numpy as np
from PIL import Image

from rsa_jax.pictures.clip_figure import Row, annotate, draw_rows, save_animation


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
