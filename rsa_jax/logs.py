"""Log output of the command-line programs."""

import importlib.util
import logging as std_logging
from pathlib import Path

from absl import flags, logging


def setup_logging() -> None:
    """Print one short line per record to standard error.

    Information of this project and of clu, warnings of other packages, and errors only of Orbax: it warns of every
    checkpoint that was saved without an evaluation, which is intended here.
    """
    flags.FLAGS.mark_as_parsed()  # else absl warns that it logs before its flags are parsed; no program has any
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    verbose, quiet = _folders("rsa_jax", "clu"), _folders("orbax")

    def is_printed(record: std_logging.LogRecord) -> bool:
        record.msg = str(record.msg).replace("Setting work unit notes: ", "Progress: ")  # clu's words
        folders = set(Path(record.pathname).parents)
        if quiet & folders:
            return record.levelno >= std_logging.ERROR
        return bool(verbose & folders) or record.levelno >= std_logging.WARNING

    handler.addFilter(is_printed)


def _folders(*packages: str) -> set[Path]:
    """Folders of installed packages."""
    specs = [importlib.util.find_spec(package) for package in packages]
    return {Path(folder) for spec in specs if spec for folder in spec.submodule_search_locations or ()}
