"""Flags that several programs have."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; --config.x=y changes a field.", lock_config=True
)
OUT = flags.DEFINE_string("out", None, "Output: an image, whose extension sets the format, or a folder.")
