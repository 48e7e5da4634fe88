"""Settings that the recipes share, and settings in which they differ."""

from importlib import import_module
from pathlib import Path

import pytest

from rsa_jax.training.optimizer import make_schedule

FILES = (Path(__file__).parents[1] / "configs").glob("*.py")
RECIPES = sorted(path.stem for path in FILES if path.stem not in ("common", "__init__"))
PUBLISHED = {"ssv1", "ssv1_16", "ssv2", "ssv2_16", "diving48", "gym99", "gym288"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_of_published_runs_are_as_published_and_no_others(recipe):
    config = import_module(f"configs.{recipe}").get_config()
    settings = config.init_from, config.matmul_precision, config.data.sampling, config.optimizer.restart_step
    if recipe in PUBLISHED:
        assert settings == ("required", "float32", "published", True)
        assert (config.model.batch_norm_clips, config.batch_size, config.optimizer.learning_rate) == (8, 64, 0.02)
    else:
        assert settings == ("none", "default", "whole", False)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_a_data_set_and_a_schedule(recipe):
    """The network is built in the tests of its costs."""
    config = import_module(f"configs.{recipe}").get_config()
    assert config.data.name is not None
    make_schedule(config.optimizer, epochs=config.epochs, steps_per_epoch=10)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_compares_a_run_with_its_own_rate_and_batch(recipe):
    config = import_module(f"configs.{recipe}").get_config()
    there = config.optimizer.recipe_learning_rate, config.optimizer.recipe_batch_size
    assert there == (config.optimizer.learning_rate, config.batch_size)
