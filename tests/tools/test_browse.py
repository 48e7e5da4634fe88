"""Training clips as the network sees them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from rsa_jax.input_pipeline import pipeline
from rsa_jax.preparation.datasets import motion
from rsa_jax.tools.browse import clip_rows, outlined

ROOT = Path(__file__).parents[2]


def test_rows_are_the_clips_of_a_step(config):
    """Crops cover the whole frame, so the network sees the stored pixels or their mirror image."""
    config.data.update(image_size=36, crop_scales=(1.0,), crop_distortion=0, flip_policy="swap")
    rows = clip_rows(config, step=2, count=40)
    arguments = {"batch_size": 16, "seed": config.seed, "start_step": 2, "num_steps": 5}
    batches = list(pipeline.train_batches(config.data, **arguments))
    clips = [(int(b["index"][i]), int(b["label"][i]), b["frames"][i]) for b in batches for i in range(16)]
    assert len(rows) == 40
    swapped = {}
    for row, (index, stored, frames) in zip(rows, clips, strict=False):
        first, *shown = row.frames
        assert f"[{index}: train_{index:05}]" in row.title
        np.testing.assert_array_equal(first[1:-1, 1:-1], frames[0, 1:-1, 1:-1])
        mirrored = "mirrored" in row.title
        np.testing.assert_array_equal(shown, frames[:, :, ::-1] if mirrored else frames)
        assert row.colour == ("tab:blue" if mirrored else "black")
        label = int(row.title.split()[0])
        assert row.title.startswith(f"{label} {motion.CLASS_NAMES[label]}")
        if label == stored:
            assert "from" not in row.title
        else:
            assert f"mirrored from {stored} {motion.CLASS_NAMES[stored]} " in row.title
            swapped[stored] = label
    assert swapped == {0: 1, 1: 0, 6: 7, 7: 6}


def test_the_line_lies_inside_the_crop():
    frame = np.zeros((9, 12, 3), np.uint8)
    drawn = outlined(frame, np.array([2, 3]), np.array([5, 6]))
    expected = np.zeros((9, 12), bool)
    expected[2:7, 3:9] = True
    expected[3:6, 4:8] = False
    np.testing.assert_array_equal(drawn[..., 1] == 255, expected)
    assert not frame.any()


def test_the_program_draws_them(tmp_path, data_dir):
    command = [sys.executable, "-m", "rsa_jax", "browse", "--config=tests/tiny.py", "--clips=3"]
    environment = os.environ | {"DATA_DIR": str(data_dir), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [*command, f"--out={tmp_path / 'clips.png'}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "3 clips of step 0 of motion/tiny" in result.stdout.splitlines()[-1]
    width, height = Image.open(tmp_path / "clips.png").size
    assert width > height > 300
