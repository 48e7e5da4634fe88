"""Your own videos, prepared by `python -m rsa_jax prepare video_folder --source DIR`."""

from ml_collections import ConfigDict

from rsa_jax.settings import default_config


def get_config() -> ConfigDict:
    """RSANet-50 for a few thousand clips on one GPU: the published recipe with a smaller batch."""
    config = default_config()
    config.batch_size = config.optimizer.recipe_batch_size = 16
    config.label_smoothing = 0.1
    # The published 0.02 for 64 clips, scaled in proportion to the batch size.
    config.optimizer.learning_rate = config.optimizer.recipe_learning_rate = 0.005
    config.model.stochastic_depth = 0.2
    config.eval.batch_size = 16
    config.data.name = "video_folder"
    return config
