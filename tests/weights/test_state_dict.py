"""Import and export of state dicts: exact and complete, or refused as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rsa_jax
from rsa_jax.nn.model_config import model_config as default_model_config
from rsa_jax.nn.network import STAGE_SIZES
from rsa_jax.training.models import blank_model
from rsa_jax.weights import load_torch, to_torch
from tests import golden_files

LAYERS = golden_files.read("rsa_layer")


def model_config(**fields):
    config = default_model_config()
    config.update({"num_classes": 5} | fields)
    return config


def drawn(model, seed=0):
    """The model with random values everywhere; they are positive, since variances are."""
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), state))


def assert_equal_models(a, b):
    leaves = (jax.tree.leaves(nnx.state(model)) for model in (a, b))
    for x, y in zip(*leaves, strict=True):
        np.testing.assert_array_equal(x, y)


def torchvision_state_dict(depth, seed=0):
    """Random values under the names and shapes of torchvision's ResNet of that depth."""
    rng = np.random.default_rng(seed)
    state_dict = {}

    def conv(name, outputs, inputs, size):
        state_dict[f"{name}.weight"] = rng.standard_normal((outputs, inputs, size, size)).astype(np.float32)

    def norm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state_dict[f"{name}.{leaf}"] = rng.standard_normal(channels).astype(np.float32)
        state_dict[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs, expansion = 64, 4 if depth >= 50 else 1
    for stage, size in enumerate(STAGE_SIZES[depth]):
        width = 64 * 2**stage
        for index in range(size):
            name = f"layer{stage + 1}.{index}"
            shapes = [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)]
            for i, shape in enumerate(shapes if depth >= 50 else [(width, inputs, 3), (width, width, 3)]):
                conv(f"{name}.conv{i + 1}", *shape)
                norm(f"{name}.bn{i + 1}", shape[0])
            if index == 0 and inputs != expansion * width:
                conv(f"{name}.downsample.0", expansion * width, inputs, 1)
                norm(f"{name}.downsample.1", expansion * width)
            inputs = expansion * width
    state_dict["fc.weight"] = rng.standard_normal((1000, inputs)).astype(np.float32)
    state_dict["fc.bias"] = rng.standard_normal(1000).astype(np.float32)
    return state_dict


def test_released_state_dict_comes_back_bit_for_bit():
    shapes = golden_files.read("state_dict_shapes")
    state_dict = golden_files.state_dict(shapes)
    model = blank_model(model_config(num_classes=174))
    load_torch(model, {f"module.{name}": array for name, array in state_dict.items()})
    back = to_torch(model)
    assert {name: list(array.shape) for name, array in back.items()} == shapes
    for name, array in state_dict.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("case", LAYERS)
def test_a_single_layer_comes_back_bit_for_bit(case):
    settings = LAYERS[case]
    layer = rsa_jax.RSA(**golden_files.layer_arguments(settings), rngs=nnx.Rngs(0))
    state_dict = golden_files.state_dict(settings["state_dict"], prefix=f"{case}.")
    load_torch(layer, state_dict)
    back = to_torch(layer)
    assert back.keys() == state_dict.keys()
    for name, array in state_dict.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": 18, "transform_blocks": ((0, 1), (), (1,), ())},
        {"depth": 34, "transform": "conv2d"},
        {"depth": 101, "transform_blocks": ((), (), (0, 22), (0,))},
    ],
)
def test_models_of_any_depth_and_positions_come_back_bit_for_bit(fields):
    config = model_config(width=8, **fields)
    model, again = drawn(blank_model(config)), blank_model(config)
    load_torch(again, to_torch(model))
    assert_equal_models(model, again)


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), (50, 25_557_032), (101, 44_549_160)])
def test_torchvision_gives_all_but_transforms_and_classifier(depth, parameters):
    """The parameter counts are torchvision's own."""
    state_dict = torchvision_state_dict(depth)
    running = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(array.size for name, array in state_dict.items() if not name.endswith(running)) == parameters
    config = model_config(depth=depth, transform_blocks=((), (1,), (0, 1), ()))
    model = drawn(blank_model(config))
    before = to_torch(model)
    load_torch(model, state_dict)
    own = ("new_fc.", "base_model.layer2.1.", "base_model.layer3.0.", "base_model.layer3.1.")
    for name, array in to_torch(model).items():
        if name.startswith(own):
            np.testing.assert_array_equal(array, before[name])
        else:
            there = state_dict[name.removeprefix("base_model.")]
            np.testing.assert_array_equal(array, there.reshape(array.shape))


def test_a_network_without_transforms_takes_all_of_torchvision_but_the_classifier():
    model, state_dict = blank_model(model_config(depth=18, transform="conv2d")), torchvision_state_dict(18)
    load_torch(model, state_dict)
    back = to_torch(model)
    assert back["base_model.layer4.1.conv2.weight"].shape == (512, 512, 1, 3, 3)
    np.testing.assert_array_equal(
        back["base_model.layer4.1.conv2.weight"][:, :, 0], state_dict["layer4.1.conv2.weight"]
    )
    assert not back["new_fc.weight"].any()


def test_all_that_does_not_fit_is_listed_and_nothing_is_loaded():
    config = model_config(depth=18, width=8, stage_sizes=(1,), transform_blocks=((),))
    model = drawn(blank_model(config))
    state_dict, before = to_torch(drawn(blank_model(config), seed=1)), to_torch(model)
    del state_dict["base_model.bn1.bias"]
    state_dict["base_model.layer1.0.conv3.weight"] = np.zeros((4, 4))
    state_dict["new_fc.weight"] = np.zeros((7, 8, 1))
    state_dict["new_fc.bias"] = np.array(["a"] * 5)
    state_dict["head.num_batches_tracked"] = np.zeros(())
    with pytest.raises(ValueError) as error:
        load_torch(model, state_dict)
    assert "missing: base_model.bn1.bias (8,)" in str(error.value)
    assert "unknown: base_model.layer1.0.conv3.weight (4, 4)" in str(error.value)
    assert "unknown: head.num_batches_tracked ()" in str(error.value)
    assert "wrong type: new_fc.bias: expected real numbers, got <U1" in str(error.value)
    assert "wrong shape: new_fc.weight: expected (5, 8, 1), got (7, 8, 1)" in str(error.value)
    for name, array in to_torch(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_name_that_stands_there_twice_is_refused():
    with pytest.raises(ValueError, match=r"duplicate name: bn1.bias, with several prefixes, one of them in bn1.bias"):
        load_torch(blank_model(model_config()), {"module.bn1.bias": np.zeros(2), "bn1.bias": np.zeros(2)})


UNPUBLISHED = [
    ({"transform": "conv3d"}, "stage 0, block 0: SpaceTimeConv"),
    ({"transform": "tsm"}, "stage 0, block 0: ShiftedConv"),
    ({"transform": "self_attention"}, "stage 0, block 0: SelfAttention"),
    ({"rsa.normalization": "none"}, "stage 0, block 0: RSA with normalization 'none'"),
    ({"rsa.relation_groups": 1}, "stage 0, block 0: RSA with relation_groups 1"),
    (
        {"rsa.decomposed": False, "rsa.normalization": "batch"},
        "stage 0, block 0: RSA with normalization 'batch', decomposed False",
    ),
    ({"rsa.factorized": True}, "stage 0, block 0: FactorizedRSA"),
]


@pytest.mark.parametrize(("fields", "said"), UNPUBLISHED)
def test_what_the_published_code_does_not_know_takes_weights_of_torchvision_alone(fields, said):
    config = model_config(depth=18, transform_blocks=((0,), (), (), ()))
    config.update_from_flattened_dict(fields)
    model = blank_model(config)
    for refused in (lambda: to_torch(model), lambda: load_torch(model, {"new_fc.bias": np.zeros(5)})):
        with pytest.raises(ValueError) as error:
            refused()
        assert str(error.value).splitlines()[1:] == ["  " + said]
    state_dict = torchvision_state_dict(18)
    load_torch(model, state_dict)
    block = model.stages[0][0]
    # With a temporal shift, the block keeps its own convolution.
    assert jnp.any(block.conv1.kernel[...]) == (config.transform == "tsm")
    second = np.moveaxis(np.asarray(model.stages[0][1].conv2.kernel[...]), (3, 2), (0, 1))
    np.testing.assert_array_equal(second, state_dict["layer1.1.conv2.weight"])


def test_torchvision_of_another_depth_is_refused():
    with pytest.raises(ValueError, match=r"unknown: layer3.6.conv1.weight"):
        load_torch(blank_model(model_config(depth=50)), torchvision_state_dict(101))


def test_the_classifier_may_stay_out():
    fields = {"depth": 18, "width": 8, "stage_sizes": (1,), "transform_blocks": ((),)}
    source, target = drawn(blank_model(model_config(num_classes=9, **fields))), blank_model(model_config(**fields))
    load_torch(target, to_torch(source), classifier=False)
    back = to_torch(target)
    assert not back["new_fc.weight"].any()
    np.testing.assert_array_equal(back["base_model.conv1.weight"], to_torch(source)["base_model.conv1.weight"])
