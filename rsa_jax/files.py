"""Atomic file writes, on a file system or in a bucket: a file is complete or absent, whenever a program ends."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is a URL, such as gs://bucket/run."""
    return "://" in os.fspath(path)


@contextmanager
def complete(path: epath.Path) -> Iterator[epath.Path]:
    """Yields a temporary path to write to; on success, the file is renamed to `path`.

    In a bucket, a file appears only when its upload ends: there, it is `path` itself.
    """
    if is_remote(path):
        yield path
        return
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def printable(path: Path) -> str:
    """The path as text that can be written anywhere: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def write_json(path: epath.Path, content: Any) -> None:
    """Writes a JSON file. NaN and infinity, which JSON does not have, become null."""
    with complete(path) as partial:
        partial.write_text(json.dumps(without_nan(content), indent=2) + "\n")


def without_nan(content: Any) -> Any:
    """The content with None for numbers that are NaN or infinite."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
