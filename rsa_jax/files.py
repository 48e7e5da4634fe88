"""Atomic file writes: a file is complete or absent, whenever a program ends."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; on success, the file is renamed to `path`."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)


def printable(path: Path) -> str:
    """The path as text that can be written anywhere: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    with complete(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
