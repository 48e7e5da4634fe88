"""Figures of kernels: which kernels are chosen, and how they are drawn."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from rsa_jax.nn.network import create_model
from rsa_jax.pictures.kernel_figure import GAP, NAMES, Panel, draw_kernels, similarity
from rsa_jax.tools import visualize
from rsa_jax.tools.visualize import choose_layer, clip_and_reverse, corresponding, make_panels, short_names
from rsa_jax.training.models import save_model
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def model():
    config = tiny_config("unused").model
    config.num_classes, config.stage_sizes, config.transform_blocks = 3, (2,), ((0, 1),)
    config.zero_init, config.remat = False, True
    model = create_model(config, rngs=nnx.Rngs(0))
    model.eval()
    return model


def clip():
    return np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)


def test_layers_by_number_and_name(model):
    first, second = ("stages", 0, 0, "conv2"), ("stages", 0, 1, "conv2")
    assert choose_layer(model, None) == (second, model.stages[0][1].conv2)
    assert choose_layer(model, "0")[0] == choose_layer(model, "stages.0.0.conv2")[0] == first
    with pytest.raises(ValueError, match=r"expected one of 0 \(stages.0.0.conv2\), 1 .*, got '2'"):
        choose_layer(model, "2")


def test_kernels_of_a_clip_and_its_reverse(model):
    """The first layer sees single frames: in the reversed clip, its queries are the same but their relations differ."""
    path, layer = choose_layer(model, "0")
    panels, probabilities = make_panels(model, path, layer, clip(), (1, 3, 2))
    _, x, y = clip_and_reverse(model, path, clip())
    assert [panel.position for panel in panels] == [(1, 3, 2), (2, 3, 2)]
    assert [panel.window for panel in panels] == [((0, 2), (2, 4), (1, 3)), ((1, 3), (2, 4), (1, 3))]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(x[1], x[0, ::-1], atol=1e-5)
    np.testing.assert_allclose(layer(x), y, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(panels[1].frames, panels[0].frames[::-1])
    for i, panel in enumerate(panels):
        basic, relational = layer.kernels(x, panel.position).values()
        assert list(panel.kernels) == ["basic", "relational", "total"]
        np.testing.assert_allclose(panel.kernels["total"], basic[i] + relational[i], rtol=1e-4, atol=1e-6)
    assert similarity("basic", *panels) > 0.9999
    assert similarity("relational", *panels) < 0.99
    strongest, _ = make_panels(model, path, layer, clip(), None)
    assert strongest[0].position == np.unravel_index(np.linalg.norm(y[0], axis=-1).argmax(), y.shape[1:4])
    with pytest.raises(ValueError, match="expected frame 0 to 3, row 0 to 3, column 0 to 3, got 1,4,0"):
        make_panels(model, path, layer, clip(), (1, 4, 0))
    elsewhere, _ = make_panels(model, path, layer, clip(), (1, 15, 6), (4, 16, 16))
    assert [panel.position for panel in elsewhere] == [(1, 3, 1), (2, 3, 1)]


def test_the_corresponding_position():
    sizes = (4, 7, 14), (8, 14, 7)
    assert corresponding((0, 3, 13), *sizes) == (1, 7, 6)
    assert corresponding((3, 6, 0), *sizes) == (7, 13, 0)
    for size in range(1, 9):
        for place in range(size):
            assert corresponding((place, place, place), (size,) * 3, (size, 3 * size, 1)) == (place, 3 * place + 1, 0)


def test_names_of_workdirs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    paths = [Path(path) for path in ("/a/runs/rsa", "/b/runs/rsa/", "/b/attention", ".", "/b/../c", "/c")]
    assert short_names(paths) == ["a/runs/rsa", "b/runs/rsa", "attention", tmp_path.name, "/c", "/c"]


def panel(kernel_size, **kernels):
    return Panel(np.zeros((3, 20, 20, 3), np.uint8), (3, 2, 2), (0, 1, 0), kernel_size, kernels)


def test_what_lies_outside_of_the_clip():
    inside = panel((3, 3, 1)).inside()
    expected = np.zeros((3, 3, 1), bool)
    expected[1:, :2] = True
    np.testing.assert_array_equal(inside, expected)
    outside = np.where(inside, [[[1.0]], [[-3.0]], [[2.0]]], 100)[None]
    one, other = panel((3, 3, 1), basic=outside), panel((3, 3, 1), basic=-np.abs(outside))
    assert one.largest("basic") == 3
    assert similarity("basic", one, other) == pytest.approx((9 - 4) / (9 + 4))
    assert panel(None).window == ((0, 2), (0, 1), (0, 1))
    assert panel(None).inside().all()


def share(path, colour):
    """Fraction of the figure's pixels that have a colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.mean(np.all(np.abs(pixels - colour) < 40, axis=-1))


@pytest.mark.parametrize("queries", [1, 8])
@pytest.mark.parametrize("kernel_size", [(3, 3, 1), None])
def test_the_picture(tmp_path, kernel_size, queries):
    shape = (queries, *(kernel_size or (3, 2, 2)))
    some = panel(kernel_size, basic=np.full(shape, 0.5), attention=np.zeros(shape))
    out = tmp_path / "kernels.png"
    draw_kernels(["first", "second $^$"], [some, some], out)
    # The outlines of query and window, and the colours of the largest and the smallest value.
    yellow, red, largest, smallest = (share(out, c) for c in ((255, 255, 0), (255, 0, 0), (103, 0, 31), (5, 48, 97)))
    assert yellow > red > 0
    assert largest > 2 * smallest > 0
    draw_kernels(["nothing"], [panel(kernel_size, basic=np.zeros(shape))], out)


def test_every_row_has_its_own_scale(tmp_path):
    """Tiny kernels are drawn as strongly as huge ones; a clip and its reverse share the scale of each row."""
    ones, out = np.ones((2, 3, 3, 3)), tmp_path / "kernels.png"

    def dark(*networks):
        first, *further = ([panel((3, 3, 3), basic=a * ones), panel((3, 3, 3), basic=b * ones)] for a, b in networks)
        draw_kernels(["clip", "backwards"], first, out, further)
        return share(out, (103, 0, 31))

    assert dark((1e-3, 1e-3), (1e3, 1e3)) == pytest.approx(dark((1e3, 1e3), (1e3, 1e3)), rel=0.01)
    assert dark((1e-3, 1e3), (1e3, 1e3)) < 0.8 * dark((1e3, 1e3), (1e3, 1e3))
    one = panel((3, 3, 3), basic=1e-3 * ones, relational=1e3 * ones)
    same = panel((3, 3, 3), basic=1e3 * ones, relational=1e3 * ones)
    shares = []
    for each in (one, same):
        draw_kernels(["clip"], [each], out)
        shares.append(share(out, (103, 0, 31)))
    assert shares[0] == pytest.approx(shares[1], rel=0.01)


def test_rows_of_all_shapes_and_long_names(tmp_path):
    """Nothing extends beyond the figure, and no caption overlaps the kernels."""
    out = tmp_path / "kernels.png"
    shapes = [((3, 3, 1), 8), (None, 2), ((1, 9, 1), 6), ((3, 1, 5), 1)]
    networks = [
        [panel(size, basic=-1e-12 * np.ones((queries, *(size or (3, 2, 2)))))._replace(network="W" * 40)]
        for size, queries in shapes
    ]
    draw_kernels(["W" * 300 + "\n" + "some words " * 30], networks[0], out, networks[1:])
    pixels = np.asarray(Image.open(out).convert("RGB"))
    edges = (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:])
    assert all(np.all(edge == 255) for edge in edges)
    titles = round(150 * (GAP + 7 * 0.14))
    assert np.all(pixels[titles:, round(150 * (NAMES - GAP / 2))] == 255)


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
