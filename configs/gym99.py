"""FineGym, 99 classes, as published."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe."""
    config = common.get_published_config()
    config.model.num_classes = 99
    config.data.name = "finegym/gym99"
    return config
