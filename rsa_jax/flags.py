"""The flag of all programs that take a configuration."""

from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; --config.x=y changes a field.", lock_config=True
)
