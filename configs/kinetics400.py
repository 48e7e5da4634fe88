"""Kinetics-400: the usual pre-training for smaller data sets. The paper does not train on it."""

from ml_collections import ConfigDict

from rsa_jax.settings import default_config


def get_config() -> ConfigDict:
    """The common recipe, evaluated on 10 clips x 3 crops, as is usual for Kinetics."""
    config = default_config()
    config.model.num_classes = 400
    config.model.batch_norm_clips = 8
    config.data.name = "kinetics400"
    config.eval.num_clips = 10
    config.eval.num_crops = 3
    return config
