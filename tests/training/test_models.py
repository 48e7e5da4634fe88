"""Initial weights: from a file, from a workdir, random, and recipes that require them."""

import logging
from importlib import import_module

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rsa_jax.training.initial_weights import load_initial_weights
from rsa_jax.training.loop import make_run, train
from rsa_jax.training.models import blank_model, load_model, save_model
from rsa_jax.training.state import merge_model
from rsa_jax.weights import to_torch, write_state_dict
from tests.weights.test_state_dict import drawn, torchvision_state_dict

PUBLISHED = ("ssv1", "ssv1_16", "ssv2", "ssv2_16", "diving48", "gym99", "gym288")


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO, logger="absl")
    return caplog


def initial_model(config):
    run = make_run(config)
    state = run.initial_state()
    return merge_model(run.model.train, state.params, state.batch_stats)


def save(path, config, seed=0, **fields):
    model = config.model.copy_and_resolve_references()
    model.update(fields)
    state_dict = to_torch(drawn(blank_model(model), seed))
    write_state_dict(path, state_dict)
    config.init_from = str(path)
    return state_dict


@pytest.mark.parametrize(("name", "num_classes"), [("weights.npz", 10), ("weights.safetensors", 7)])
def test_a_file_gives_all_but_the_classifier_whose_classes_it_does_not_name(
    tmp_path, config, messages, name, num_classes
):
    state_dict = save(tmp_path / name, config, num_classes=num_classes)
    random = to_torch(make_random(config))
    for name, array in to_torch(initial_model(config)).items():
        expected = random[name] if name.startswith("new_fc.") else state_dict[name]
        np.testing.assert_array_equal(array, expected)
    assert "Classifier: random: a weight file does not name its classes." in messages.text


def make_random(config):
    run = make_run(config)
    state = run.init()
    return merge_model(run.model.train, state.params, state.batch_stats)


def test_random_weights_are_said_to_be_random(config, messages):
    for a, b in zip(*(jax.tree.leaves(to_torch(f(config))) for f in (initial_model, make_random)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "Initial weights: random, seed 0 (init_from=none)." in messages.text


@pytest.fixture
def pretrained(tmp_path, config):
    """A workdir with random weights and the data set's class names, its model, and a configuration that names it."""
    run = make_run(config)
    model = drawn(blank_model(run.config.model), 5)
    save_model(model, run.config, tmp_path / "pretrained", source="drawn", class_names=run.info.class_names)
    config.init_from = str(tmp_path / "pretrained")
    return tmp_path / "pretrained", model, config


def test_a_workdir_of_the_same_classes_gives_all(pretrained, messages):
    _, model, config = pretrained
    expected = to_torch(model)
    for name, array in to_torch(initial_model(config)).items():
        np.testing.assert_array_equal(array, expected[name])
    assert "the best checkpoint of a run on motion/tiny. Classifier: loaded." in messages.text


@pytest.mark.parametrize("case", ["does not record its class names", "have other names", "are in another order"])
def test_as_many_classes_of_other_names_are_other_classes(pretrained, tmp_path, messages, case):
    """The workdir also has ten classes."""
    _, model, config = pretrained
    run = make_run(config)
    known = run.info.class_names
    names = {"does not record its class names": None, "have other names": tuple("abcdefghij")}.get(case, known[::-1])
    save_model(model, run.config, tmp_path / "other", source="drawn", class_names=names)
    config.init_from = str(tmp_path / "other")
    back, expected, random = (to_torch(network) for network in (initial_model(config), model, make_random(config)))
    np.testing.assert_array_equal(back["new_fc.weight"], random["new_fc.weight"])
    np.testing.assert_array_equal(back["base_model.conv1.weight"], expected["base_model.conv1.weight"])
    assert f"{case}" in messages.text


def test_a_workdir_of_another_transform_gives_the_rest(pretrained, messages):
    """The transform in the first block changes from RSA to self-attention."""
    _, model, config = pretrained
    config.model.transform, config.model.self_attention.num_heads = "self_attention", 2
    config.model.self_attention.kernel_size = (3, 3, 3)
    back, random = initial_model(config), make_random(config)
    np.testing.assert_array_equal(back.conv1.kernel[...], model.conv1.kernel[...])
    np.testing.assert_array_equal(back.fc.kernel[...], model.fc.kernel[...])
    for a, b in zip(*(jax.tree.leaves(x.stages[0][0].conv1.kernel) for x in (back, random)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "blocks 0.0 (stage.block); no matching weights for their self_attention." in messages.text
    assert "Classifier: loaded." in messages.text


def test_a_block_whose_transform_has_other_weights_stays_random(pretrained, messages):
    """RSA has weights of the same name in another part."""
    _, model, config = pretrained
    config.model.transform = "dynamic_conv"
    back, random = initial_model(config), make_random(config)
    np.testing.assert_array_equal(back.conv1.kernel[...], model.conv1.kernel[...])
    np.testing.assert_array_equal(back.stages[0][0].conv2.H2[...], random.stages[0][0].conv2.H2[...])
    assert "Randomly initialised (seed 0): blocks 0.0" in messages.text


def test_weights_that_cannot_be_are_refused_with_all_that_differs(pretrained, tmp_path):
    path, _, config = pretrained
    config.model.width = 16
    with pytest.raises(ValueError, match=rf"init_from: {path}: .*(?s:.*)wrong shape: conv1.kernel: expected"):
        initial_model(config)
    (tmp_path / "empty").mkdir()
    for init_from, message in (
        (tmp_path / "empty", "init_from: .*holds no run"),
        (tmp_path / "elsewhere", "init_from: expected a weight file, a workdir .* no such file: .*elsewhere"),
        ("", "init_from: expected a weight file, a workdir or 'none'"),
    ):
        config.init_from = str(init_from)
        with pytest.raises(ValueError, match=message):
            initial_model(config)
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_published_recipe_asks_for_weights_before_anything_else(tmp_path, recipe):
    config = import_module(f"configs.{recipe}").get_config()
    with pytest.raises(ValueError, match="init_from: .*ImageNet") as error:
        train(config, tmp_path / "workdir")
    for text in ("timm/resnet50.tv_in1k/resolve/main/model.safetensors", "--config.init_from=none"):
        assert text in str(error.value)
    assert not (tmp_path / "workdir").exists()


def test_a_published_recipe_starts_from_the_file_that_it_asks_for(tmp_path, config, messages):
    """ResNet-50 under torchvision's names, as timm distributes it; the network is that of the paper."""
    published = import_module("configs.ssv1").get_config()
    published.data.update(name=config.data.name, data_dir=config.data.data_dir)
    state_dict = torchvision_state_dict(50)
    save_file(state_dict, tmp_path / "resnet50.tv_in1k.safetensors")
    published.init_from = str(tmp_path / "resnet50.tv_in1k.safetensors")
    published.model.num_classes = 174
    run = make_run(published)
    model = merge_model(run.model.train, *(jax.tree.map(zeros, part) for part in run.abstract_state()[1:3]))
    load_initial_weights(model, published, run.info.class_names)
    back = to_torch(model)
    fresh = ("layer1.2.", "layer2.1.", "layer2.3.", "layer3.1.", "layer3.3.", "layer3.5.", "layer4.1.")
    loaded = 0
    for name, array in state_dict.items():
        if not name.startswith((*fresh, "fc.")) and not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[f"base_model.{name}"].reshape(array.shape), array)
            loaded += 1
    assert loaded == sum(name.startswith("base_model.") and "num_batches" not in name for name in back) - sum(
        name.startswith(tuple(f"base_model.{block}" for block in fresh)) and "num_batches" not in name for name in back
    )
    assert "blocks 0.2, 1.1, 1.3, 2.1, 2.3, 2.5, 3.1 (stage.block); no matching weights for their rsa." in messages.text
    assert "a torchvision ResNet. Classifier: random: ImageNet has other classes." in messages.text


def zeros(leaf):
    return np.zeros(leaf.shape, leaf.dtype)


def test_weights_that_do_not_fit_leave_the_workdir_free(tmp_path, config):
    save(tmp_path / "weights.npz", config, num_classes=10, width=16)
    with pytest.raises(ValueError, match=r"wrong shape: base_model.conv1.weight: expected \(8, 3, 1, 3, 3\)"):
        train(config, tmp_path / "workdir")
    config.init_from = str(tmp_path / "elsewhere.npz")
    with pytest.raises(ValueError, match=r"init_from: .* no such file: .*elsewhere.npz"):
        train(config, tmp_path / "workdir")
    config.init_from = "none"
    train(config, tmp_path / "workdir")


def test_a_finished_run_needs_its_initial_weights_no_more(tmp_path, config, messages):
    config.epochs, config.optimizer.warmup_epochs = 1, 0
    path = tmp_path / "weights.npz"
    save(path, config, num_classes=10)
    config.optimizer.recipe_batch_size = 64
    train(config, tmp_path / "workdir")
    for said in ("Activations in float32; matrix products: as fast", "The rate per clip is 4 times the recipe's"):
        assert said in messages.text
    path.unlink()
    train(config, tmp_path / "workdir")
    assert f"Resuming from step 4 of 4. The run's initial weights: {path}." in messages.text
    assert load_model(tmp_path / "workdir", "latest").fc.out_features == 10
