"""Figures of kernels of one or several workdirs."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from rsa_jax.nn.network import create_model
from rsa_jax.tools import visualize
from rsa_jax.tools.visualize import short_names
from rsa_jax.training.models import save_model
from tests.tiny import tiny_config


def test_names_of_workdirs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    paths = [Path(path) for path in ("/a/runs/rsa", "/b/runs/rsa/", "/b/attention", ".", "/b/../c", "/c")]
    assert short_names(paths) == ["a/runs/rsa", "b/runs/rsa", "attention", tmp_path.name, "/c", "/c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments VIDEO --index is required"),
        (["clip.mp4", "--index", "0"], "not allowed with argument"),
        (["--index", "0", "clip.mp4"], "not allowed with argument"),
    ],
)
def test_a_video_or_an_index(arguments, message, capsys):
    with pytest.raises(SystemExit):
        visualize.main(["--workdir", "somewhere", "--out", "kernels.png", *arguments])
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Workdirs of an untrained network with RSA, and of one with self-attention on a larger feature map."""
    folder = tmp_path_factory.mktemp("runs")
    for transform, stride in (("rsa", 4), ("self_attention", 2)):
        config = tiny_config("unused")
        config.model.num_classes, config.model.transform, config.model.stem_stride = 3, transform, stride
        config.model.self_attention.num_heads, config.model.self_attention.kernel_size = 2, ()
        save_model(create_model(config.model, rngs=nnx.Rngs(0)), config, folder / transform, source="a test")
    return [folder / "rsa", folder / "self_attention"]


@pytest.fixture
def video(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for number, frame in enumerate(np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


def test_networks_of_two_workdirs(workdirs, video, tmp_path, capsys):
    sizes = []
    for number in (1, 2):
        out = tmp_path / f"{number}.png"
        flags = [text for workdir in workdirs[:number] for text in ("--workdir", str(workdir))]
        visualize.main([*flags, str(video), "--out", str(out), "--position", "1,3,3"])
        sizes.append(Image.open(out).size)
    alone, both = capsys.readouterr().out.splitlines()
    assert alone.startswith("Kernels of stages.0.0.conv2 for clip")
    assert "stages.0.0.conv2 in rsa, stages.0.0.conv2 in self_attention for clip" in both
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] > sizes[0][1] + 50
    with pytest.raises(SystemExit, match=r"runs.*/rsa: position: expected .*, got 1,4,3"):
        visualize.main([*flags, str(video), "--out", str(out), "--position", "1,4,3"])


def test_networks_that_see_different_clips(workdirs, tmp_path):
    config = tiny_config("unused")
    config.model.num_classes, config.data.num_frames = 3, 8
    save_model(create_model(config.model, rngs=nnx.Rngs(0)), config, tmp_path / "other", source="a test")
    flags = ["--workdir", str(workdirs[0]), "--workdir", str(tmp_path / "other"), "--out", str(tmp_path / "k.png")]
    with pytest.raises(SystemExit, match=r"data.num_frames is 4 in .*/rsa but 8 in .*/other; networks in one"):
        visualize.main([*flags, "--index", "0"])
