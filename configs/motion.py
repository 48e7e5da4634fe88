"""Synthetic clips whose class is their motion: a demonstration that trains on a laptop."""

from ml_collections import ConfigDict

from rsa_jax.settings import default_config


def get_config() -> ConfigDict:
    """A small network with RSA in its last stages, on clips of 8 frames of 32 x 32 pixels."""
    config = default_config()
    config.batch_size = config.optimizer.recipe_batch_size = 16
    config.epochs = 8
    config.data.name = "motion"
    config.data.image_size = 32
    config.data.crop_scales = (1.0, 0.875)
    config.data.eval_crop = 1.0
    config.model.num_classes = 10
    config.model.width = 16
    config.model.stage_sizes = (2, 2)
    config.model.transform_blocks = ((0, 1), (1,))
    config.model.zero_init = False
    config.model.dropout = 0.0
    config.model.self_attention.num_heads = 2
    config.optimizer.learning_rate = config.optimizer.recipe_learning_rate = 0.05
    config.optimizer.warmup_epochs = 0
    config.optimizer.schedule = "step"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.gradient_clip = 5.0
    config.eval.batch_size = 96
    return config
