"""The network's layers against their definitions, its size, and errors for invalid configurations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from rsa_jax import ops
from rsa_jax.nn.layers import BatchNorm, StochasticDepth, average_pool
from rsa_jax.nn.model_config import model_config as default_model_config
from rsa_jax.nn.network import count_parameters, create_model, keep_probs
from rsa_jax.training.models import blank_model
from tests.tiny import FAST_COMPILATION


def clips(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def model_config(**fields):
    """A small network with one RSA block in its second stage."""
    config = default_model_config()
    config.update(num_classes=5, width=4, stage_sizes=(1, 2), transform_blocks=((), (1,)), stem_kernel=3, dropout=0.0)
    config.rsa.update(num_queries=2, kernel_size=(3, 3, 3))
    config.update(fields)
    return config


def drawn_model(config):
    """The model with random kernels, so that every block matters.

    NumPy draws them: compiling so many random draws takes longer than compiling the network.
    """
    rng = np.random.default_rng(0)

    def draw(leaf):
        if leaf.ndim < 2:
            return jnp.ones(leaf.shape, leaf.dtype)
        return jnp.asarray(rng.standard_normal(leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5, leaf.dtype)

    graph, params, stats = nnx.split(blank_model(config), nnx.Param, nnx.BatchStat)
    return nnx.merge(graph, jax.tree.map(draw, params), jax.tree.map(jnp.ones_like, stats))


def run(model, x):
    return nnx.jit(lambda model, x: model(x))(model, x)


PARAMETERS = {  # for 174 classes
    (50, "rsa"): 22_034_302,
    (50, "conv2d"): 23_864_558,
    (18, "conv2d"): 11_265_774,
    (34, "conv2d"): 21_373_934,
    (101, "conv2d"): 42_856_686,
}


@pytest.mark.parametrize(("depth", "transform"), PARAMETERS)
def test_number_of_parameters(depth, transform):
    config = default_model_config()
    config.update(depth=depth, transform=transform, num_classes=174)
    model = nnx.eval_shape(lambda: create_model(config, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == PARAMETERS[depth, transform]


@pytest.mark.parametrize("depth", [18, 50])
def test_rsa_sees_the_order_of_frames_and_convolution_does_not(depth):
    x = clips(2, 4, 16, 16, 3)
    for transform in ("rsa", "conv2d"):
        model = drawn_model(model_config(transform=transform, depth=depth))
        model.eval()
        difference = jnp.max(jnp.abs(run(model, x) - run(model, x[:, ::-1])))
        assert (difference > 1e-3) if transform == "rsa" else (difference < 1e-4)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_transform_may_stand_where_the_stride_is(depth):
    config = model_config(depth=depth, stage_sizes=(1, 1), transform_blocks=((0,), (0,)))
    maps = nnx.eval_shape(lambda model, x: model.feature_maps(x), blank_model(config), clips(1, 2, 20, 12, 3))
    shapes = [y.shape for y in maps]
    expansion = 4 if depth == 50 else 1
    assert shapes == [(1, 2, 5, 3, 4 * expansion), (1, 2, 3, 2, 8 * expansion)]


def test_forward_mode_is_the_transpose_of_reverse_mode():
    """Through the whole network, in plain JAX."""
    graph, params, stats = nnx.split(drawn_model(model_config(implementation="xla")), nnx.Param, nnx.BatchStat)
    x, cotangent = clips(2, 2, 12, 12, 3), clips(2, 5, seed=1)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), params)

    @jax.jit
    def both(params, direction):
        def logits(params):
            return nnx.merge(graph, params, stats, copy=True)(x)

        _, pushed = jax.jvp(logits, (params,), (direction,))
        (pulled,) = jax.vjp(logits, params)[1](cotangent)
        return jnp.vdot(pushed, cotangent), optax.tree.vdot(pulled, direction)

    forward, reverse = both(params, direction)
    assert abs(reverse) > 0.1
    np.testing.assert_allclose(forward, reverse, rtol=1e-4)


@pytest.mark.parametrize("transform", ["rsa", "conv2plus1d"])
def test_implementations_are_the_same_network(transform):
    def outputs(implementation):
        model = drawn_model(model_config(transform=transform, implementation=implementation))
        graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

        def loss(params, x):
            model = nnx.merge(graph, params, stats, copy=True)
            return jnp.sum(jnp.sin(model(x))), nnx.state(model, nnx.BatchStat)

        compiled = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=FAST_COMPILATION)
        return compiled(params, clips(4, 3, 12, 12, 3))

    for a, b in zip(jax.tree.leaves(outputs("xla")), jax.tree.leaves(outputs("cpu")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 + 2e-4 * np.max(np.abs(b)))


def test_rematerialisation_changes_nothing():
    def outputs(remat):
        model = drawn_model(model_config(remat=remat, stochastic_depth=0.5))
        graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

        @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
        def update(params, stats, x):
            def loss(params):
                model = nnx.merge(graph, params, stats, copy=True)
                return jnp.sum(jnp.sin(model(x, rngs=nnx.Rngs(3)))), nnx.state(model, nnx.BatchStat)

            return jax.value_and_grad(loss, has_aux=True)(params)

        return update(params, stats, clips(4, 3, 12, 12, 3))

    for a, b in zip(jax.tree.leaves(outputs(True)), jax.tree.leaves(outputs(False)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.max(np.abs(b)))


def test_bfloat16_activations_with_float32_parameters_statistics_and_logits():
    models = [drawn_model(model_config(dtype=d)) for d in ("bfloat16", "float32")]
    low, high = (run(model, clips(4, 3, 16, 16, 3)) for model in models)
    maps = nnx.eval_shape(lambda model, x: model.feature_maps(x), models[0], clips(1, 1, 8, 8, 3))
    assert maps[0].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(models[0]))} == {jnp.dtype("float32")}
    assert low.dtype == jnp.float32
    assert jnp.max(jnp.abs(low - high)) < 0.1 * jnp.max(jnp.abs(high))


def test_batch_norm_normalises_and_keeps_the_unbiased_variance():
    x, layer = clips(2, 3, 4, 5, 6) * 3 + 1, BatchNorm(6)
    y = np.asarray(layer(x)).reshape(-1, 6)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(0), 1, rtol=1e-4)
    flat = np.asarray(x).reshape(-1, 6)
    np.testing.assert_allclose(layer.mean[...], 0.1 * flat.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
    layer.eval()
    expected = (flat - layer.mean[...]) / np.sqrt(layer.var[...] + 1e-5)
    np.testing.assert_allclose(np.asarray(layer(x)).reshape(-1, 6), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_over_groups_is_batch_norm_of_each():
    x, grouped = clips(6, 2, 3, 3, 4), BatchNorm(4, clips=2)
    singles = [BatchNorm(4) for _ in range(3)]
    expected = jnp.concatenate([layer(x[2 * i : 2 * i + 2]) for i, layer in enumerate(singles)])
    np.testing.assert_allclose(grouped(x), expected, atol=1e-5)
    np.testing.assert_allclose(grouped.var[...], np.mean([layer.var[...] for layer in singles], 0), rtol=1e-5)
    with pytest.raises(ValueError, match="batch_norm_clips: a batch of 6 clips is not a multiple of 4"):
        BatchNorm(4, clips=4)(x)


def test_rematerialisation_saves_memory():
    def memory(remat):
        model = drawn_model(model_config(remat=remat, stage_sizes=(3, 3)))
        graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

        def loss(params, x):
            return jnp.sum(jnp.sin(nnx.merge(graph, params, stats, copy=True)(x)))

        program = jax.jit(jax.grad(loss), compiler_options=ops.compiler_options("cpu") | FAST_COMPILATION)
        return program.lower(params, clips(4, 4, 32, 32, 3)).compile().memory_analysis().temp_size_in_bytes

    assert memory(True) < 0.9 * memory(False)


def test_average_pool_counts_only_pixels_that_are_there():
    x = jnp.arange(15.0).reshape(1, 1, 3, 5, 1)
    np.testing.assert_allclose(average_pool(x, 2)[0, 0, :, :, 0], [[3, 5, 6.5], [10.5, 12.5, 14]])


def test_stochastic_depth_keeps_the_mean_and_drops_whole_clips():
    layer = StochasticDepth(0.75)
    y = np.asarray(layer(jnp.ones((4000, 2, 1, 1, 2)), nnx.Rngs(0)))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert np.all(y == y[:, :1, :, :, :1])
    assert abs(y.mean() - 1) < 0.05
    with pytest.raises(ValueError, match="needs rngs"):
        layer(jnp.ones((1, 1, 1, 1, 1)), None)
    layer.eval()
    np.testing.assert_array_equal(layer(jnp.ones((3, 1, 1, 1, 1)), None), 1)


def test_keep_probability_falls_linearly_to_the_last_block():
    np.testing.assert_allclose(keep_probs(16, 0.2), np.linspace(1, 0.8, 16))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 20}, "model.depth: expected one of"),
        ({"num_classes": 0}, "model.num_classes: expected"),
        ({"dtype": "int8"}, "model.dtype: expected"),
        ({"transform_blocks": ((0,),)}, "model.transform_blocks: expected a tuple for each of 2 stages"),
        ({"transform_blocks": ((), (2,))}, "model.transform_blocks: stage 1 has blocks 0 to 1"),
    ],
)
def test_bad_configurations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        create_model(model_config(**fields), rngs=nnx.Rngs(0))


def test_the_classifier_starts_as_the_published_one():
    """Uniform with variance 2 / (inputs + classes)."""
    config = model_config(num_classes=174)
    kernel = jax.jit(lambda: create_model(config, rngs=nnx.Rngs(0)).fc.kernel[...])()
    limit = (6 / sum(kernel.shape)) ** 0.5
    assert 0.98 * limit < jnp.max(jnp.abs(kernel)) <= limit
    np.testing.assert_allclose(jnp.std(kernel), limit / 3**0.5, rtol=0.05)
