"""Transforms by name: contract, dtypes, devices, initial weights, and errors for invalid fields."""

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
from ml_collections import ConfigDict

from rsa_jax.nn.layers import BatchNorm
from rsa_jax.nn.model_config import model_config as default_model_config
from rsa_jax.nn.network import create_model
from rsa_jax.nn.protocols import HasKernels, Transform
from rsa_jax.nn.registry import TRANSFORMS, transform_factory

ROOT = Path(__file__).parents[2]
OTHERS = [name for name in TRANSFORMS if name != "conv2d"]


def model_config(**fields):
    config = default_model_config()
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


def make_layer(**fields):
    """Layer without memory for its weights."""
    return nnx.eval_shape(lambda: transform_factory(model_config(**fields), nnx.Rngs(0))(16))


@pytest.mark.parametrize("transform", OTHERS)
def test_entries_fulfil_the_contract(transform):
    """Entries with BatchNorm pass on the ghost batch size; the others have no BatchNorm."""
    layer = make_layer(transform=transform, batch_norm_clips=2, **{"rsa.normalization": "batch"})
    assert isinstance(layer, Transform)
    shape = (2, 3, 5, 4, 16)
    assert layer.macs(shape) == 2 * layer.macs((1, *shape[1:])) > 0
    clips = {module.clips for _, module in nnx.iter_modules(layer) if isinstance(module, BatchNorm)}
    assert clips == ({2} if TRANSFORMS[transform].batch_norm else set())


def test_sections_of_the_network_are_those_that_entries_name():
    config = default_model_config()
    sections = {name for name in config if isinstance(config[name], ConfigDict)}
    assert {entry.section for entry in TRANSFORMS.values() if entry and entry.section} == sections


@pytest.mark.parametrize(
    ("fields", "kernel_size"),
    [
        ({"transform": "rsa"}, (5, 7, 7)),
        ({"transform": "dynamic_conv"}, (5, 7, 7)),
        ({"transform": "self_attention"}, (5, 7, 7)),
        ({"transform": "self_attention", "self_attention.kernel_size": ()}, None),
    ],
)
def test_layers_whose_kernels_can_be_drawn(fields, kernel_size):
    layer = make_layer(**fields)
    assert isinstance(layer, HasKernels)
    assert layer.kernel_size == kernel_size
    x = jax.ShapeDtypeStruct((2, 3, 5, 4, 16), jnp.float32)
    kernels = nnx.eval_shape(lambda layer, x: layer.kernels(x, (0, 4, 3)), layer, x)
    assert {kernel.shape for kernel in kernels.values()} == {(2, 8, *(kernel_size or (3, 5, 4)))}


@pytest.mark.parametrize("transform", sorted(set(OTHERS) - {"rsa", "dynamic_conv", "self_attention"}))
def test_layers_without_kernels_to_draw(transform):
    assert not isinstance(make_layer(transform=transform), HasKernels)


@pytest.mark.parametrize("transform", OTHERS)
def test_shapes_and_types(transform):
    """A layer computes in the network's dtype and keeps the input's shape; parameters are float32."""
    layer = make_layer(transform=transform, dtype="bfloat16")
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
