"""The paper's tables of costs: M parameters and G multiply-adds, and those of every recipe."""

import functools
import itertools
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from configs import common
from rsa_jax.network import count_parameters
from rsa_jax.tools.profile import profile, saved_bytes
from rsa_jax.training.models import blank_model
from rsa_jax.transforms.factory import TRANSFORMS
from rsa_jax.transforms.rsa import PARTS

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
    ({"model.transform": "dynamic_conv"}, 29.97, 20.01),
]

# Channels, side of the map and number of the layers that hold a transform; each takes the place of a 1x3x3 convolution
# of 9 C² weights.
LAYERS = [(64, 56, 1), (128, 28, 2), (256, 14, 3), (512, 7, 1)]
FRAMES, QUERIES, WINDOW = 8, 8, 245


def rsa_cost(C, M, *, D=None, H1=None):
    """Eq. 12 with decomposed H, in products at a position and in weights; H1 has M H1 D of them."""
    c = C // QUERIES
    D, H1 = D or c, H1 or c
    projection, decomposed = C * (C + 2 * c), M != D
    products = projection + c * (M * (D + D * decomposed + c) + 2 * QUERIES * D + c * D)
    return products, projection + M * H1 * D + M * D * decomposed + c * D + M * c + c * c


def attention_cost(C, seen, *, keys, embedding=0, embedding_products=0):
    """Projection, products of query and key, sum of values."""
    projection = C * (C + 2 * keys * C // QUERIES)
    return projection + 2 * seen * C + embedding_products, projection + embedding


def added(cost, products=0, weights=0):
    return cost[0] + products, cost[1] + weights


# Changes, and multiply-adds at a position and weights of a layer of C channels on a map of side S, by hand.
COSTS = [
    ({"model.transform": "conv3d"}, lambda C, S: (27 * C * C, 27 * C * C)),
    # ⌊2.25 C⌋ channels in between, which have a BatchNorm.
    (
        {"model.transform": "conv2plus1d"},
        lambda C, S: (12 * C * (9 * C // 4), 12 * C * (9 * C // 4) + 2 * (9 * C // 4)),
    ),
    ({"model.transform": "tsm"}, lambda C, S: (9 * C * C, 9 * C * C)),
    (
        {"model.transform": "self_attention"},
        lambda C, S: attention_cost(C, WINDOW, keys=8, embedding=WINDOW * C, embedding_products=WINDOW * C),
    ),
    (
        {
            "model.transform": "self_attention",
            "model.self_attention.kernel_size": (3, 5, 5),
            "model.self_attention.position": "none",
            "model.self_attention.key_value": "shared",
        },
        lambda C, S: attention_cost(C, 75, keys=1),
    ),
    (
        {"model.transform": "self_attention", "model.self_attention.position": "absolute"},
        lambda C, S: attention_cost(C, WINDOW, keys=8, embedding=96 * C),
    ),
    (
        {
            "model.transform": "self_attention",
            "model.self_attention.kernel_size": (),
            "model.self_attention.position": "absolute",
        },
        lambda C, S: attention_cost(C, FRAMES * S * S, keys=8, embedding=96 * C),
    ),
    # 16 sinusoids along each of three axes: Rᵀ q, then a product for every frame, row and column.
    (
        {
            "model.transform": "self_attention",
            "model.self_attention.kernel_size": (),
            "model.self_attention.key_value": "shared",
        },
        lambda C, S: attention_cost(
            C, FRAMES * S * S, keys=1, embedding=6 * C, embedding_products=48 * C + 16 * 8 * (FRAMES + 2 * S)
        ),
    ),
    (
        {"model.transform": "involution"},
        lambda C, S: (
            C * C // 4 + C // 4 * WINDOW * C // 16 + WINDOW * C,
            C * C // 4 + C // 2 + (C // 4 + 1) * WINDOW * C // 16,
        ),
    ),
    (
        {"model.transform": "lambda_layer"},
        lambda C, S: (
            C * (9 * 16 + C // 8) + (1 + WINDOW) * 16 * C // 8 + 16 * C,
            C * (9 * 16 + C // 8) + WINDOW * 16 + 2 * (8 * 16 + C // 8),
        ),
    ),
    ({}, lambda C, S: rsa_cost(C, WINDOW)),
    # Without P1, without I, and without the key, H1 and both.
    ({"model.rsa.kernel": "R"}, lambda C, S: added(rsa_cost(C, WINDOW), weights=-((C // 8) ** 2))),
    ({"model.rsa.context": "R"}, lambda C, S: added(rsa_cost(C, WINDOW), weights=-((C // 8) ** 2))),
    (
        {"model.rsa.kernel": "V", "model.rsa.context": "R"},
        lambda C, S: added(
            rsa_cost(C, WINDOW),
            products=-(C * C // 8 + WINDOW * (C // 8) ** 2),
            weights=-(C * C // 8 + (WINDOW + 2) * (C // 8) ** 2),
        ),
    ),
    ({"model.rsa.relation_groups": 1}, lambda C, S: (rsa_cost(C, WINDOW)[0], rsa_cost(C, WINDOW, H1=1)[1])),
    ({"model.rsa.relation_groups": 4}, lambda C, S: (rsa_cost(C, WINDOW)[0], rsa_cost(C, WINDOW, H1=4)[1])),
    ({"model.rsa.decomposed": False, "model.rsa.kernel_size": (3, 3, 3)}, lambda C, S: rsa_cost(C, 27, D=27)),
    ({"model.rsa.normalization": "batch"}, lambda C, S: added(rsa_cost(C, WINDOW), weights=2 * (C + C // 4))),
    ({"model.rsa.normalization": "lambda"}, lambda C, S: added(rsa_cost(C, WINDOW), weights=2 * (C + C // 8))),
    ({"model.rsa.normalization": "none"}, lambda C, S: rsa_cost(C, WINDOW)),
    ({"model.rsa.factorized": True}, lambda C, S: added(rsa_cost(C, 49), *rsa_cost(C, 5))),
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


def exact_totals(changes):
    """Multiply-adds and parameters of the network with 174 classes."""
    config = common.get_config()
    config.model.num_classes = 174
    config.update_from_flattened_dict(changes)
    costs = profile(config)
    return np.array([sum(getattr(cost, of) for cost in costs) for of in ("multiply_adds", "parameters")])


@pytest.fixture(scope="module")
def without_transform():
    return exact_totals({"model.transform": "conv2d"})


@pytest.mark.parametrize(("changes", "cost"), COSTS)
def test_other_transforms_and_variants(without_transform, changes, cost):
    """To the last of them, as differences from the network without a transform."""
    expected = 0
    for channels, side, number in LAYERS:
        products, weights = np.subtract(cost(channels, side), 9 * channels**2)
        expected += number * np.array([FRAMES * side**2 * products, weights])
    np.testing.assert_array_equal(exact_totals(changes) - without_transform, expected)


def test_every_transform_and_pair_has_a_row():
    rows = [changes for changes, *_ in [*PAPER, *COSTS]]
    assert {changes.get("model.transform", "rsa") for changes in rows} == set(TRANSFORMS)
    pairs = {(changes.get("model.rsa.kernel", "V+R"), changes.get("model.rsa.context", "V+R")) for changes in rows}
    assert pairs == set(itertools.product(PARTS, PARTS))


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
