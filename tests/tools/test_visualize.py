"""Pictures of kernels: which kernels, and what is drawn of them."""

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from rsa_jax.network import create_model
from rsa_jax.tools.kernel_figure import Panel, draw_kernels, similarity
from rsa_jax.tools.visualize import choose_layer, clip_and_reverse, make_panels


@pytest.fixture(scope="module")
def model():
    from tests.tiny import tiny_config

    config = tiny_config("unused").model
    config.num_classes, config.stage_sizes, config.positions = 3, (2,), ((0, 1),)
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
    """The first layer sees single frames: backwards, its queries are the same and their relations are others."""
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
    """Of the picture's pixels that have a colour."""
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
