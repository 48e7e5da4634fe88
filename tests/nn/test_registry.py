"""Transforms by name: dtypes, devices, initial weights, and errors for invalid fields."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import common
from rsa_jax.nn.network import create_model
from rsa_jax.nn.registry import TRANSFORMS, transform_factory

ROOT = Path(__file__).parents[2]
OTHERS = [name for name in TRANSFORMS if name != "conv2d"]


def model_config(**fields):
    config = common.model_config()
    config.update(num_classes=5, width=16, stage_sizes=(1,), transform_blocks=((0,),))
    config.update_from_flattened_dict(fields)
    return config


def test_devices_that_share_a_batch_only_add_up_gradients():
    two = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.nn.collectives"]
    run = subprocess.run(command, cwd=ROOT, env=two, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for fields, found in json.loads(run.stdout.splitlines()[-1]):
        assert found == ["all-reduce"], fields


@pytest.mark.parametrize("transform", OTHERS)
def test_shapes_and_types(transform):
    """A layer computes in the network's dtype and keeps the input's shape; parameters are float32."""
    config = model_config(transform=transform, dtype="bfloat16")
    layer = nnx.eval_shape(lambda: transform_factory(config, nnx.Rngs(0))(16))
    x = jax.ShapeDtypeStruct((2, 3, 5, 4, 16), jnp.bfloat16)
    y = nnx.eval_shape(lambda layer, x: layer(x), layer, x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "fields",
    [
        {"transform": "self_attention", "self_attention.kernel_size": (3, 3, 3)},
        {"transform": "self_attention", "self_attention.kernel_size": ()},
        {"transform": "involution", "involution.kernel_size": (3, 3, 3)},
        {"transform": "lambda_layer", "lambda_layer.kernel_size": (3, 3, 3)},
    ],
)
def test_bfloat16_stays_near_float32(fields):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 4, 16)), jnp.float32)

    def output(dtype):
        config = model_config(dtype=dtype, **fields)
        return jax.jit(lambda x: transform_factory(config, nnx.Rngs(0))(16)(x))(x).astype(jnp.float32)

    expected = output("float32")
    assert jnp.linalg.norm(output("bfloat16") - expected) < 0.03 * jnp.linalg.norm(expected)


@pytest.mark.parametrize(
    "fields",
    [
        *({"transform": name} for name in OTHERS),
        {"transform": "self_attention", "self_attention.kernel_size": ()},
        {"transform": "self_attention", "self_attention.position": "absolute"},
    ],
)
def test_order_counts_from_the_start(fields):
    """Initial weights distinguish a clip from its reverse: a term that drowned out positions would delay learning."""
    layer = transform_factory(model_config(**fields), nnx.Rngs(0))(16)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 1, 1, 16)), jnp.float32)
    run = nnx.jit(lambda layer, x: layer(x))
    forwards, backwards = run(layer, x), run(layer, x[:, ::-1])[:, ::-1]
    assert jnp.linalg.norm(forwards - backwards) > 0.25 * jnp.linalg.norm(forwards)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"transform": "rsx"}, "model.transform: expected one of \\('conv2d', 'rsa', "),
        ({"rsa.num_queries": 3}, "model.rsa.num_queries: expected a divisor of the 16 channels, got 3"),
        ({"rsa.kernel_size": (3, 3)}, "model.rsa.kernel_size: expected odd sizes: three .*, got \\(3, 3\\)"),
        ({"rsa.relation_groups": 4}, "model.rsa.relation_groups: expected a divisor of the 2 channels of a query"),
        ({"rsa.factorized": True, "rsa.context": "H"}, "model.rsa.context: expected one of"),
        ({"transform": "dynamic_conv", "rsa.relation_groups": 1}, "model.rsa.relation_groups: kernel 'V' has no rel"),
        ({"transform": "self_attention", "self_attention.num_heads": 3}, "model.self_attention.num_heads: expected a"),
        ({"transform": "self_attention", "self_attention.key_value": "one"}, "model.self_attention.key_value: expect"),
        ({"transform": "self_attention", "self_attention.position": "left"}, "model.self_attention.position: expect"),
        ({"transform": "self_attention", "self_attention.kernel_size": (3, 2, 3)}, "self_attention.kernel_size: exp"),
        ({"transform": "involution", "involution.kernel_size": (3,)}, "model.involution.kernel_size: expected odd"),
        ({"transform": "involution", "involution.group_channels": 32}, "group_channels: expected a divisor of the 16"),
        ({"transform": "involution", "involution.reduction": 0}, "model.involution.reduction: expected a divisor"),
        ({"transform": "lambda_layer", "lambda_layer.num_queries": 5}, "model.lambda_layer.num_queries: expected a"),
        ({"transform": "lambda_layer", "lambda_layer.key_channels": 0}, "model.lambda_layer.key_channels: expected a"),
        ({"transform": "lambda_layer", "lambda_layer.kernel_size": (2, 3, 3)}, "lambda_layer.kernel_size: expected"),
        ({"transform": "tsm", "width": 4}, "model.transform.tsm: shifts one in 8 channels, and the block has 4"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    config = model_config(**fields)
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: create_model(config, rngs=nnx.Rngs(0)))
