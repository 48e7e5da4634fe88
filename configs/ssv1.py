"""Something-Something V1 as published: 8 frames; 16 with --config.data.num_frames=16 --config.epochs=80."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe."""
    config = common.get_config()
    config.label_smoothing = 0.1
    config.model.num_classes = 174
    config.model.dropout = 0.3
    config.model.stochastic_depth = 0.2
    config.model.batch_norm_clips = 8
    config.data.name = "video_folder/ssv1"
    return config
