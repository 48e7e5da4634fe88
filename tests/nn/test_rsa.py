"""Properties of the layer, and its errors for invalid arguments."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsa_jax.nn import RSA
from rsa_jax.ops.equations import relational_context
from rsa_jax.ops.windows import windows


def make_layer(**settings):
    return RSA(**{"channels": 16, "num_queries": 4, "kernel_size": (3, 3, 3), "rngs": nnx.Rngs(0), **settings})


def clips(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def test_a_position_sees_its_window_and_nothing_else():
    layer, x = make_layer(), clips(1, 6, 7, 7, 16)
    changed = jnp.any(layer(x) != layer(x.at[0, 3, 3, 3].add(1.0)), axis=-1)[0]
    expected = np.zeros((6, 7, 7), bool)
    expected[2:5, 2:5, 2:5] = True
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"kernel": "V"}, ["basic"]),
        ({"kernel": "R", "relation_groups": 2}, ["relational"]),
        ({"kernel": "V+R"}, ["basic", "relational"]),
        ({"kernel": "V+R", "decomposed": False}, ["basic", "relational"]),
    ],
)
def test_kernels_applied_to_the_explicit_context_give_the_output(settings, names):
    """In the middle and in a corner of the feature map, in float64."""
    with jax.enable_x64():
        layer, x = make_layer(**settings, kernel_size=(3, 1, 5)), clips(2, 4, 3, 5, 16).astype(jnp.float64)
        value = windows(layer.project(x)[2], layer.kernel_size)
        context = value @ layer.I[...] + relational_context(value, layer.G[...])
        output = layer(x).reshape(*x.shape[:-1], -1, layer.num_queries)  # channel c * L + l
        for position in [(1, 1, 3), (3, 0, 0)]:
            kernels = layer.kernels(x, position)
            assert list(kernels) == names
            total = sum(kernels.values())
            assert total.shape == (2, 4, 3, 1, 5)
            y = total.reshape(2, 4, -1) @ context[(slice(None), *position)]
            np.testing.assert_allclose(y.mT, output[(slice(None), *position)], rtol=1e-10, atol=1e-12)


def test_the_layer_commutes_with_translation():
    layer, x = make_layer(), jnp.pad(clips(1, 3, 4, 4, 16), ((0, 0), (1, 1), (1, 3), (1, 3), (0, 0)))
    moved = jnp.roll(x, (2, 2), axis=(2, 3))
    np.testing.assert_allclose(
        jnp.roll(layer(x), (2, 2), axis=(2, 3))[:, :, 3:7, 3:7], layer(moved)[:, :, 3:7, 3:7], atol=1e-5
    )


def test_scale_of_the_input_does_not_matter_when_normalised():
    layer, x = make_layer(), clips(1, 2, 3, 3, 16)
    np.testing.assert_allclose(layer(x), layer(100 * x), rtol=1e-2, atol=1e-4)


def test_bfloat16_computes_in_bfloat16_near_float32():
    x = clips(1, 2, 4, 4, 16)
    y = make_layer(dtype=jnp.bfloat16)(x)
    assert y.dtype == jnp.bfloat16
    expected = make_layer()(x)
    assert jnp.max(jnp.abs(y.astype(jnp.float32) - expected)) < 0.03 * jnp.max(jnp.abs(expected))


def test_parameters_are_float32_in_bfloat16_too():
    params = nnx.state(make_layer(dtype=jnp.bfloat16), nnx.Param)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_images_are_clips_of_one_frame_and_sequences_clips_of_one_pixel():
    x = clips(1, 4, 5, 3, 16)
    image, image_clip, sequence, sequence_clip = (
        make_layer(kernel_size=size, kernel="R", context="V") for size in ((3, 5), (1, 3, 5), (3,), (3, 1, 1))
    )
    np.testing.assert_array_equal(jax.jit(image)(x[:, 0]), jax.jit(image_clip)(x[:, :1])[:, 0])
    pixel = jax.jit(sequence_clip)(x[:, :, :1, :1])
    np.testing.assert_array_equal(jax.jit(sequence)(x[:, :, 0, 0]), pixel[:, :, 0, 0])
    row = sequence.kernels(x[:, :, 0, 0], (3,))["relational"]
    np.testing.assert_array_equal(row, sequence_clip.kernels(x[:, :, :1, :1], (3, 0, 0))["relational"])
    with pytest.raises(ValueError, match="position: expected row 0 to 4, column 0 to 2, got 0,3"):
        image.kernels(x[:, 0], (0, 3))
    assert sequence.macs((1, 4, 16)) == sequence_clip.macs((1, 4, 1, 1, 16))
    with pytest.raises(ValueError, match=r"expected input axes B H W C for this window, got shape \(1, 4, 5, 3, 16\)"):
        image(x)


def test_groups_do_not_change_the_cost():
    """Given the switched order of Eq. 10 (project page)."""
    costs = {make_layer(relation_groups=groups).macs((1, 2, 3, 4, 16)) for groups in (1, 2, 4, None)}
    assert len(costs) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_queries": 3}, "num_queries: expected a divisor of the 16 channels, got 3"),
        ({"kernel_size": (3, 4, 3)}, "kernel_size: expected odd sizes: three"),
        ({"kernel_size": (3.0, 3, 3)}, "two (height, width; images) or one (sequences), got (3.0, 3, 3)"),
        ({"kernel_size": 3}, "kernel_size: expected odd sizes: three"),
        (
            {"kernel_size": (3, 3, 3, 3)},
            "kernel_size: expected odd sizes: three (frames, height, width), two (heigh",
        ),
        ({"kernel_size": ()}, "kernel_size: expected odd sizes: three"),
        ({"latent_dim": 0}, "latent_dim: expected a positive number"),
        ({"kernel": "R+V"}, "kernel: expected one of"),
        ({"context": "H"}, "context: expected one of"),
        ({"kernel": "V", "latent_dim": 2}, "latent_dim: not used by kernel 'V'"),
        ({"kernel": "V", "relation_groups": 1}, "relation_groups: kernel 'V' has no relation"),
        ({"relation_groups": 3}, "relation_groups: expected a divisor of the 4 channels of a query, or None, got 3"),
        ({"decomposed": False, "latent_dim": 2}, "latent_dim: not used with decomposed=False"),
        ({"normalization": "layer"}, "normalization: expected one of"),
        ({"implementation": "fast"}, "implementation: expected None or one of"),
    ],
)
def test_bad_arguments_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_layer(**settings)


@pytest.mark.parametrize(
    ("channels", "expected"), [(64, (0.0113, 0.0319, 0.0319, 0.0226)), (512, (0.0014, 0.0113, 0.0113, 0.0080))]
)
def test_initial_weights_are_the_published_ones(channels, expected):
    """Standard deviations of H1, H2, G and P1 with 8 queries and a window of 5 x 7 x 7; I is the identity."""
    layer = RSA(channels, rngs=nnx.Rngs(0))
    for name, std in zip(("H1", "H2", "G", "P1"), expected, strict=True):
        weights = getattr(layer, name)[...]
        np.testing.assert_allclose(jnp.std(weights), std, rtol=0.05 + 2 / weights.size**0.5)
    np.testing.assert_array_equal(layer.I[...], jnp.eye(channels // 8))
    np.testing.assert_allclose(jnp.std(layer.projection.kernel[...]), (2 / (channels * 10 / 8)) ** 0.5, rtol=0.05)
