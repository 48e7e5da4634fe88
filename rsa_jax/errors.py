"""Mistakes of the user, as one line."""

import contextlib
import errno
import linecache
import os
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parent
_FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk
# Raised by Python for a file that is missing, or cannot be read or written; its message names the file.
_OF_FILES = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


@contextlib.contextmanager
def in_one_line(*types: type[Exception]) -> Iterator[None]:
    """Ends the program with one line for a mistake of the user; every other error keeps its traceback.

    A mistake of the user is an error of this project's own words: one that a `raise` statement of the package raised.
    An error of the same type from within JAX or any other library is a bug, and so is one of Python, except for files
    that are missing or cannot be read or written, and for a full disk.

    With RSA_JAX_TRACEBACK=1 in the environment, every error keeps its traceback.

    Args:
        types: errors that may be mistakes of the user, in addition to ValueError, ImportError and OSError.

    Raises:
        SystemExit: with the line, for a mistake of the user.
    """
    caught: tuple[type[Exception], ...] = (ValueError, ImportError, OSError, *types)
    try:
        yield
    except caught as error:
        if not is_mistake(error) or os.environ.get("RSA_JAX_TRACEBACK"):
            raise
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def is_mistake(error: Exception) -> bool:
    """Whether the user is to blame for an error that was caught; see `in_one_line`."""
    if isinstance(error, _OF_FILES) or (isinstance(error, OSError) and error.errno in _FULL):
        return True
    path, line = origin(error)
    return _PACKAGE in path.parents and line.startswith("raise ")


def origin(error: Exception) -> tuple[Path, str]:
    """The file and the line of code that raised an error which was caught."""
    where = error.__traceback__
    assert where is not None
    while where.tb_next is not None:
        where = where.tb_next
    path = where.tb_frame.f_code.co_filename
    return Path(path), linecache.getline(path, where.tb_lineno).strip()
