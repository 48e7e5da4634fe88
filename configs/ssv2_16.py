"""Something-Something V2 as published, 16 frames."""

from ml_collections import ConfigDict

from configs import ssv2


def get_config() -> ConfigDict:
    """The 8-frame recipe with twice the frames and 80 epochs."""
    config = ssv2.get_config()
    config.epochs = 80
    config.data.num_frames = 16
    return config
