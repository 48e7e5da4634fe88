"""Settings that several recipes share."""

from ml_collections import ConfigDict

from rsa_jax.settings import default_config


def get_published_config() -> ConfigDict:
    """The settings of the published runs, without a data set."""
    config = default_config()
    config.init_from = "required"  # ImageNet weights
    config.matmul_precision = "float32"  # the only precision of their GPUs
    config.model.batch_norm_clips = 8
    config.data.sampling = "published"
    config.optimizer.restart_step = True
    return config
