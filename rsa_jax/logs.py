"""What programs print."""

import logging as std_logging

from absl import logging


def setup_logging() -> None:
    """Short lines on standard error: what the run and clu say, warnings of others, and errors of Orbax.

    Orbax warns of every checkpoint that was saved without an evaluation, which is as it should be.
    """
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_is_told)


def _is_told(record: std_logging.LogRecord) -> bool:
    if "orbax" in record.pathname:
        return record.levelno >= std_logging.ERROR
    ours = any(name in record.pathname for name in ("rsa_jax", "clu", "main.py"))
    return ours or record.levelno >= std_logging.WARNING
