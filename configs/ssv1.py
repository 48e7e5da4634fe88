"""Something-Something V1 as published, 8 frames."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe."""
    config = common.get_published_config()
    config.label_smoothing = 0.1
    config.model.num_classes = 174
    config.model.dropout = 0.3
    config.model.stochastic_depth = 0.2
    config.data.name = "something_something_v1"
    return config
