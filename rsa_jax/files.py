"""Files that are complete or not there at all, whenever a program ends."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Gives a path to write to; what lies there gets its name when all has gone well."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)


def printable(path: Path) -> str:
    """The path as text that can be written anywhere: bytes of a name that are no UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    with complete(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
