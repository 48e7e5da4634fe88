"""UCF101: few clips, for fine-tuning with init_from. The paper does not train on it."""

from ml_collections import ConfigDict

from rsa_jax.settings import default_config


def get_config() -> ConfigDict:
    """The common recipe with fewer epochs, a lower learning rate and more dropout."""
    config = default_config()
    config.epochs = 30
    config.model.num_classes = 101
    config.model.dropout = 0.8
    config.model.batch_norm_clips = 8
    config.optimizer.learning_rate = config.optimizer.recipe_learning_rate = 0.005
    config.data.name = "ucf101/split1"
    return config
