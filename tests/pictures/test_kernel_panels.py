"""Kernels of a clip and of the same clip played backwards: which are chosen, and which values they have."""

import numpy as np
import pytest
from flax import nnx

from rsa_jax.nn.network import create_model
from rsa_jax.pictures.kernel_figure import similarity
from rsa_jax.pictures.kernel_panels import choose_layer, clip_and_reverse, corresponding, make_panels
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
