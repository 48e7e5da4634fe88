"""FineGym, 288 classes, as published."""

from ml_collections import ConfigDict

from configs import gym99


def get_config() -> ConfigDict:
    """The Gym99 recipe on 288 classes."""
    config = gym99.get_config()
    config.model.num_classes = 288
    config.data.name = "finegym/gym288"
    return config
