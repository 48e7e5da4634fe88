"""Every transform and variant, forward and gradient, against loops over positions in plain NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsa_jax.nn.model_config import model_config as default_model_config
from rsa_jax.nn.registry import TRANSFORMS, transform_factory
from rsa_jax.nn.rsa import PARTS
from tests.nn import loops
from tests.tiny import FAST_COMPILATION

RSA_FIELDS = {"num_queries": 2, "kernel_size": (3, 3, 3)}
ATTENTION = {"num_heads": 2, "key_value": "per_head", "kernel_size": (3, 3, 3), "position": "none"}
SHAPE = (2, 2, 3, 2, 4)

# Transform, its reference, input shape, fields.
CASES = {
    "rsa": ("rsa", loops.rsa, SHAPE, RSA_FIELDS),
    **{
        f"rsa, kernel {kernel}, context {context}": (
            "rsa",
            loops.rsa,
            (1, 2, 2, 2, 4),
            RSA_FIELDS | {"kernel": kernel, "context": context},
        )
        for kernel, context in itertools.product(PARTS, PARTS)
        if (kernel, context) != ("V+R", "V+R")
    },
    "rsa, window larger than the map": ("rsa", loops.rsa, (1, 2, 3, 1, 4), RSA_FIELDS | {"kernel_size": (5, 3, 7)}),
    "rsa, one frame, D": ("rsa", loops.rsa, (2, 1, 3, 5, 4), RSA_FIELDS | {"latent_dim": 3}),
    "rsa, dot product": ("rsa", loops.rsa, SHAPE, RSA_FIELDS | {"relation_groups": 1}),
    "rsa, groups": ("rsa", loops.rsa, (*SHAPE[:4], 8), RSA_FIELDS | {"relation_groups": 2}),
    "rsa, not decomposed": ("rsa", loops.rsa, SHAPE, RSA_FIELDS | {"decomposed": False}),
    "rsa, not decomposed, groups, basic context": (
        "rsa",
        loops.rsa,
        (1, 1, 2, 3, 8),
        RSA_FIELDS | {"decomposed": False, "relation_groups": 2, "kernel": "R", "context": "V"},
    ),
    "rsa, batch norm": ("rsa", loops.rsa, SHAPE, RSA_FIELDS | {"normalization": "batch"}),
    "rsa, normalised as lambda": ("rsa", loops.rsa, SHAPE, RSA_FIELDS | {"normalization": "lambda"}),
    "rsa, not normalised": ("rsa", loops.rsa, SHAPE, RSA_FIELDS | {"normalization": "none", "context": "R"}),
    "rsa, factorized": ("rsa", loops.factorized_rsa, SHAPE, RSA_FIELDS | {"factorized": True}),
    "dynamic convolution": ("dynamic_conv", loops.rsa, SHAPE, RSA_FIELDS),
    "attention in a window": ("self_attention", loops.self_attention, SHAPE, ATTENTION),
    "attention in a window larger than the map, relative, shared": (
        "self_attention",
        loops.self_attention,
        (1, 1, 3, 2, 4),
        ATTENTION | {"kernel_size": (3, 5, 7), "position": "relative", "key_value": "shared"},
    ),
    "attention in a window, blocks that reach beyond the map": (
        "self_attention",
        loops.self_attention,
        (1, 1, 2, 10, 2),
        ATTENTION | {"kernel_size": (1, 3, 3), "position": "relative"},
    ),
    "attention in a window, relative": (
        "self_attention",
        loops.self_attention,
        SHAPE,
        ATTENTION | {"position": "relative", "kernel_size": (3, 1, 3)},
    ),
    "attention in a window, absolute": (
        "self_attention",
        loops.self_attention,
        SHAPE,
        ATTENTION | {"position": "absolute", "kernel_size": (1, 3, 3)},
    ),
    "attention, shared": (
        "self_attention",
        loops.self_attention,
        SHAPE,
        ATTENTION | {"kernel_size": (), "key_value": "shared"},
    ),
    "attention, relative": (
        "self_attention",
        loops.self_attention,
        SHAPE,
        ATTENTION | {"kernel_size": (), "position": "relative"},
    ),
    "attention, absolute, shared": (
        "self_attention",
        loops.self_attention,
        SHAPE,
        ATTENTION | {"kernel_size": (), "position": "absolute", "key_value": "shared"},
    ),
    "attention without softmax in a window, blocks that reach beyond the map": (
        "self_attention",
        loops.self_attention,
        (1, 1, 2, 10, 2),
        ATTENTION | {"kernel_size": (1, 3, 3), "softmax": False},
    ),
    "attention without softmax in a window, relative, shared": (
        "self_attention",
        loops.self_attention,
        (1, 2, 3, 2, 4),
        ATTENTION | {"position": "relative", "key_value": "shared", "softmax": False},
    ),
    "attention without softmax in a window, absolute": (
        "self_attention",
        loops.self_attention,
        (1, 1, 2, 3, 2),
        ATTENTION | {"kernel_size": (1, 3, 3), "position": "absolute", "softmax": False},
    ),
    "attention without softmax": (
        "self_attention",
        loops.self_attention,
        (1, 2, 1, 3, 2),
        ATTENTION | {"kernel_size": (), "softmax": False},
    ),
    "attention without softmax, relative, shared": (
        "self_attention",
        loops.self_attention,
        (1, 2, 1, 3, 4),
        ATTENTION | {"kernel_size": (), "position": "relative", "key_value": "shared", "softmax": False},
    ),
    "involution": (
        "involution",
        loops.involution,
        SHAPE,
        {"kernel_size": (3, 3, 5), "group_channels": 2, "reduction": 2},
    ),
    "lambda layer": (
        "lambda_layer",
        loops.lambda_layer,
        SHAPE,
        {"num_queries": 2, "key_channels": 3, "kernel_size": (3, 3, 3)},
    ),
    "3x3x3": ("conv3d", loops.conv3d, (1, 3, 2, 3, 2), {}),
    "(2+1)D": ("conv2plus1d", loops.conv2plus1d, (2, 3, 2, 3, 2), {}),
    "temporal shift": ("tsm", loops.tsm, (1, 3, 1, 2, 17), {}),
}
LAYERS = {"dynamic_conv": {"kernel": "V", "context": "V"}}


def make_layer(transform, channels, fields, implementation=None):
    """The layer in float64, with random parameters: initial scales of 1 and biases of 0 would test nothing."""
    config = default_model_config()
    config.update(transform=transform, dtype="float64", implementation=implementation)
    if fields:
        config["rsa" if transform == "dynamic_conv" else transform].update(fields)
    layer = nnx.eval_shape(lambda: transform_factory(config, nnx.Rngs(0))(channels))
    graph, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), params)
    return nnx.merge(graph, params, jax.tree.map(lambda leaf: jnp.ones(leaf.shape), stats))


def assert_meets(layer, reference, x):
    """Asserts that the layer has the reference's value, and its slope along random directions of x and parameters."""
    rng = np.random.default_rng(2)
    graph, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)
    weights = rng.standard_normal(x.shape)

    def loss(params, x):
        y = nnx.merge(graph, params, stats, copy=True)(x)
        return jnp.sum(weights * y), y

    gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, y), grads = jax.jit(gradients, compiler_options=FAST_COMPILATION)(params, x)
    np.testing.assert_allclose(y, reference(x, plain(params)), rtol=1e-9, atol=1e-10)
    for _ in range(2):
        step = jax.tree.map(lambda leaf: 3e-6 * rng.standard_normal(leaf.shape), (params, x))
        ends = [jax.tree.map(lambda leaf, d, s=sign: leaf + s * d, (params, x), step) for sign in (1, -1)]
        rise = [np.sum(weights * reference(x, plain(params))) for params, x in ends]
        slope = sum(np.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, step)), strict=True))
        np.testing.assert_allclose(slope, (rise[0] - rise[1]) / 2, rtol=1e-5)


def plain(params):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(params))


@pytest.mark.parametrize("implementation", ["xla", "cpu"])
@pytest.mark.parametrize("case", CASES)
def test_layers_are_their_equations(case, implementation):
    transform, reference, shape, fields = CASES[case]
    settings = {name: value for name, value in fields.items() if name != "factorized"} | LAYERS.get(transform, {})
    with jax.enable_x64():
        layer = make_layer(transform, shape[-1], fields, implementation)
        x = np.random.default_rng(0).standard_normal(shape)
        assert_meets(layer, lambda x, params: reference(x, params, **settings), x)


def test_every_transform_has_a_case():
    assert {case[0] for case in CASES.values()} | {"conv2d"} == set(TRANSFORMS)
