"""The paper's tables of costs: M parameters and G multiply-adds, and those of every recipe."""

import functools
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from configs import common
from rsa_jax.network import count_parameters
from rsa_jax.tools.profile import profile, saved_bytes
from rsa_jax.training.models import blank_model

ROOT = Path(__file__).parents[2]
NONE, ONE, TWO, FOUR = ((),) * 4, ((), (), (1,), ()), ((), (), (1,), (1,)), ((), (), (1, 3, 5), (1,))

# The paper, its supplement and its logs, for 174 classes; 8 frames of 224 x 224 unless said.
PAPER = [
    ({}, 35.89, 22.03),
    ({"data.num_frames": 16}, 71.774, 22.034),
    # Queries, with D = 16.
    ({"model.rsa.num_queries": 1, "model.rsa.latent_dim": 16}, 252.5, 28.1),
    ({"model.rsa.num_queries": 2, "model.rsa.latent_dim": 16}, 92.8, 23.9),
    ({"model.rsa.num_queries": 4, "model.rsa.latent_dim": 16}, 48.2, 21.9),
    ({"model.rsa.num_queries": 8, "model.rsa.latent_dim": 16}, 34.7, 20.9),
    ({"model.rsa.num_queries": 16, "model.rsa.latent_dim": 16}, 30.2, 20.4),
    # Layers. The supplement prints 32.5 G and 24.3 M for none, which is not what such a network has.
    ({"model.positions": NONE}, 32.70, 23.86),
    ({"model.transform": "conv2d"}, 32.70, 23.86),
    ({"model.positions": ONE}, 33.2, 23.6),
    ({"model.positions": TWO}, 33.7, 22.6),
    ({"model.positions": FOUR}, 34.6, 22.2),
    # Windows.
    ({"model.rsa.kernel_size": (3, 3, 3)}, 28.54, 20.26),
    ({"model.rsa.kernel_size": (3, 5, 5)}, 30.16, 20.65),
    ({"model.rsa.kernel_size": (3, 7, 7)}, 32.58, 21.24),
    ({"model.rsa.kernel_size": (5, 5, 5)}, 31.84, 21.06),
    ({"model.rsa.kernel_size": (5, 9, 9)}, 41.28, 23.34),
    # D.
    ({"model.rsa.latent_dim": 4}, 31.09, 20.28),
    ({"model.rsa.latent_dim": 8}, 32.30, 20.49),
    ({"model.rsa.latent_dim": 16}, 34.73, 20.89),
    ({"model.rsa.latent_dim": 32}, 39.58, 21.71),
    # Kernel and context.
    ({"model.rsa.kernel": "V", "model.rsa.context": "V"}, 29.97, 20.01),
    ({"model.rsa.kernel": "V", "model.rsa.context": "V+R"}, 33.04, 20.07),
    ({"model.rsa.kernel": "R", "model.rsa.context": "V"}, 32.81, 21.97),
    ({"model.rsa.kernel": "V+R", "model.rsa.context": "V"}, 32.81, 21.98),
    ({"model.rsa.kernel": "R", "model.rsa.context": "R"}, 35.89, 22.02),
]

# Every recipe, with 10 classes where its data say how many.
RECIPES = {
    "diving48": (71.770, 21.776),
    "gym288": (35.889, 22.268),
    "gym99": (35.886, 21.881),
    "jester": (35.885, 21.733),
    "kinetics400": (35.891, 22.497),
    "motion": (0.017, 0.053),
    "ssv1": (35.887, 22.034),
    "ssv1_16": (71.774, 22.034),
    "ssv2": (35.887, 22.034),
    "ssv2_16": (71.774, 22.034),
    "ucf101": (35.886, 21.885),
    "video_folder": (35.884, 21.698),
}


def totals(config):
    costs = profile(config)
    return sum(cost.multiply_adds for cost in costs) / 1e9, sum(cost.parameters for cost in costs) / 1e6


def assert_printed(value, printed):
    """To the last printed digit."""
    digits = len(str(printed).partition(".")[2])
    assert abs(value - printed) <= 0.5001 * 10**-digits, (value, printed)


@pytest.mark.parametrize(("changes", "multiply_adds", "parameters"), PAPER)
def test_tables_of_the_paper(changes, multiply_adds, parameters):
    config = common.get_config()
    config.model.num_classes = 174
    config.update_from_flattened_dict(changes)
    actual_multiply_adds, actual_parameters = totals(config)
    assert_printed(actual_multiply_adds, multiply_adds)
    assert_printed(actual_parameters, parameters)


def test_every_recipe_has_a_row():
    recipes = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"common", "__init__"}
    assert recipes == RECIPES.keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_costs_of_the_recipes(recipe):
    config = import_module(f"configs.{recipe}").get_config()
    config.model.num_classes = config.model.num_classes or 10
    for actual, expected in zip(totals(config), RECIPES[recipe], strict=True):
        assert_printed(actual, expected)


def test_recomputing_blocks_and_bfloat16_keep_less(config):
    config.model.update(num_classes=10, stage_sizes=(3,), positions=((1,),))
    kept = saved_bytes(config)
    activations = sum(cost.output.size for cost in profile(config)) * 4
    assert kept > activations / 2
    config.model.dtype = "bfloat16"
    assert saved_bytes(config) < 0.85 * kept
    config.model.update(dtype="float32", remat=True)
    assert saved_bytes(config) < 0.5 * kept


def test_the_table_sums_up_and_times(config, data_dir):
    command = [sys.executable, "-m", "rsa_jax.tools.profile", "--config=tests/tiny.py", "--time"]
    environment = os.environ | {"DATA_DIR": str(data_dir), "JAX_PLATFORMS": "cpu"}
    run = functools.partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True)
    refused = run(command)
    assert refused.returncode == 1
    assert "model.num_classes: expected a number" in refused.stderr
    lines = run([*command, "--config.model.num_classes=10"], check=True).stdout.splitlines()
    total = next(line for line in lines if line.startswith("total")).split()
    config.model.num_classes = 10
    assert int(total[1].replace(",", "")) == count_parameters(blank_model(config.model))
    rows = [float(line.split()[-1]) for line in lines[1 : lines.index("")] if not line.startswith("total")]
    assert sum(rows) > 0
    assert abs(sum(rows) - float(total[-1])) < 0.01 * len(rows)
    assert "The whole network on cpu: forward" in lines[-1]
