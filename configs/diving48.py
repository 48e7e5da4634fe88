"""Diving48 as published: 16 frames, 2 clips in evaluation."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe, with the version 2 labels."""
    config = common.get_published_config()
    config.epochs = 30
    config.model.num_classes = 48
    config.data.name = "diving48/v2"
    config.data.num_frames = 16
    config.eval.num_clips = 2
    return config
