"""The smallest run that has all parts of a large one. Also a configuration file for main.py."""

import os

from rsa_jax.settings import default_config

# For programs that run once: they compile in a third of the time, but run slower.
FAST_COMPILATION = {"xla_backend_optimization_level": 0}


def tiny_config(data_dir):
    config = default_config()
    config.batch_size, config.epochs = 16, 2
    config.model.depth, config.model.width, config.model.stage_sizes = 50, 8, (1,)
    config.model.transform_blocks = ((0,),)
    config.model.stem_kernel, config.model.stem_stride, config.model.stem_pool = 3, 4, False
    config.model.rsa.num_queries, config.model.rsa.kernel_size = 2, (3, 3, 3)
    config.model.stochastic_depth = 0.2
    config.data.name, config.data.data_dir = "motion/tiny", str(data_dir)
    config.data.num_frames, config.data.image_size = 4, 16
    config.optimizer.warmup_epochs = 1
    config.eval.batch_size = 24  # 32 clips: the second batch is padded
    config.log.every_steps = 1
    return config


def get_config():
    return tiny_config(os.environ["DATA_DIR"])
