"""Something-Something V1 as published, 16 frames."""

from ml_collections import ConfigDict

from configs import ssv1


def get_config() -> ConfigDict:
    """The released run: twice the frames, 80 epochs, more dropout."""
    config = ssv1.get_config()
    config.epochs = 80
    config.model.dropout = 0.5
    config.data.num_frames = 16
    return config
