"""Jester: hand gestures. The paper does not train on it."""

from ml_collections import ConfigDict

from rsa_jax.settings import default_config


def get_config() -> ConfigDict:
    """The settings of Something-Something V1, from the same publisher, with random initial weights."""
    config = default_config()
    config.label_smoothing = 0.1
    config.model.num_classes = 27
    config.model.dropout = 0.3
    config.model.stochastic_depth = 0.2
    config.model.batch_norm_clips = 8
    config.data.name = "jester"
    return config
