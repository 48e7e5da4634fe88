"""Flags that several programs have."""

import ast

from absl import app, flags
from ml_collections import config_flags

from rsa_jax.errors import origin

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; --config.x=y changes a field.", lock_config=True
)
OUT = flags.DEFINE_string("out", None, "Output: an image, whose extension sets the format, or a folder.")


def parse(argv: list[str]) -> list[str]:
    """Parses the flags, for `app.run`. An unknown field of the configuration is one line, as an unknown flag is."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        if "ml_collections" not in origin(error)[0].parts:
            raise
        text = str(error.args[0]) if error.args else ""
        if text.startswith(("'", '"')):
            text = str(ast.literal_eval(text))  # the message of another error, quoted
        raise SystemExit(f"--config: no such field: {' '.join(text.split())}") from error
