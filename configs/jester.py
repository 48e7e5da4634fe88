"""Jester: hand gestures. The paper does not train on it."""

from ml_collections import ConfigDict

from configs import ssv1


def get_config() -> ConfigDict:
    """The recipe of Something-Something V1, which comes from the same publisher."""
    config = ssv1.get_config()
    config.model.num_classes = 27
    config.data.name = "jester"
    return config
