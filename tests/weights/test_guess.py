"""A network's settings are inferred from the names and shapes of its weights."""

import numpy as np
import pytest

from rsa_jax.nn.model_config import model_config
from rsa_jax.training.models import blank_model
from rsa_jax.weights import guess_model, to_torch
from tests import golden_files

SETTINGS = [
    {},
    {"depth": 18, "width": 32, "transform_blocks": ((0,), (), (1,), ()), "num_classes": 3},
    {"depth": 101, "width": 16, "transform": "conv2d"},
    {"width": 16, "stage_sizes": (2, 1), "transform_blocks": ((0, 1), (0,)), "rsa.latent_dim": 5, "rsa.num_queries": 4},
    {"width": 16, "stage_sizes": (2, 1), "transform_blocks": ((0, 1), (0,)), "rsa.latent_dim": 2},
    {
        "width": 16,
        "stage_sizes": (1,),
        "transform_blocks": ((0,),),
        "rsa.kernel": "V",
        "rsa.context": "R",
        "stem_kernel": 3,
    },
    {"width": 16, "stage_sizes": (1,), "transform_blocks": ((0,),), "rsa.kernel": "R", "rsa.context": "V"},
    {"width": 16, "stage_sizes": (1,), "transform_blocks": ((0,),), "rsa.kernel_size": (3, 9, 5), "rsa.num_queries": 1},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_is_guessed_is_what_was_made(settings):
    config = model_config()
    config.num_classes = 174
    config.update_from_flattened_dict(settings)
    guessed = guess_model(to_torch(blank_model(config)))
    again = model_config()
    again.update(guessed)
    if config.transform == "conv2d":
        again.transform_blocks = config.transform_blocks
    assert again == config


def test_the_released_names_and_shapes_are_rsanet_50():
    shapes = golden_files.read("state_dict_shapes")
    guessed = guess_model({f"module.{name}": np.zeros(shape) for name, shape in shapes.items()})
    assert (guessed["depth"], guessed["stage_sizes"], guessed["num_classes"]) == (50, (), 174)
    assert guessed["transform_blocks"] == ((2,), (1, 3), (1, 3, 5), (1,))
    assert guessed["rsa"] == {
        "num_queries": 8,
        "kernel_size": (5, 7, 7),
        "latent_dim": None,
        "kernel": "V+R",
        "context": "V+R",
    }


def test_other_state_dicts_are_refused():
    with pytest.raises(ValueError, match=r"base_model.conv1.weight is missing among encoder.weight"):
        guess_model({"encoder.weight": np.zeros(3)})


def test_layers_that_differ_are_named():
    shapes = golden_files.read("state_dict_shapes")
    name = "base_model.layer4.1.conv2."
    for leaf in ("H1.weight", "H2.weight", "G.weight"):
        shapes[name + leaf] = [*shapes[name + leaf][:2], 3, 7, 7]
    with pytest.raises(ValueError, match=r"stage 3, block 1: .*kernel_size=\(3, 7, 7\)"):
        guess_model({name: np.zeros(shape) for name, shape in shapes.items()})
