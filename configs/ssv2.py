"""Something-Something V2 as published: 8 frames; 16 with --config.data.num_frames=16 --config.epochs=80."""

from ml_collections import ConfigDict

from configs import ssv1


def get_config() -> ConfigDict:
    """The recipe of V1 on the clips of V2."""
    config = ssv1.get_config()
    config.data.name = "video_folder/ssv2"
    return config
