"""Reading of list files, class names and tables, in any Unicode encoding and with any line ends."""

import codecs
import pathlib
import re

from rsa_jax.preparation.store import PreparationError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before UTF-16, whose mark begins that of UTF-32.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _encoding(content: bytes) -> str:
    """Encoding by the byte order mark; without one, UTF-16 if every other byte of the start is 0, else UTF-8."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return encoding
    zeros = content[:2].find(b"\0")
    return {0: "utf-16-be", 1: "utf-16-le"}.get(zeros, "utf-8")


def read_text(path: pathlib.Path) -> str:
    """Text of a file in UTF-8, UTF-16 or UTF-32.

    Other encodings are refused: a wrong guess would be stored in the class names.

    Raises:
        PreparationError: If it is in another encoding; names the file, the line and the encoding tried.
    """
    content = path.read_bytes()
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = content[error.start : error.end].hex(" ")
        raise PreparationError(
            f"{path}, line {line}: expected text in {encoding.upper()}, got the bytes {found}. Save it as UTF-8, for "
            "example with: iconv -f LATIN1 -t UTF-8 OLD > NEW."
        ) from error


def numbered_lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """Non-empty lines of a text file, without surrounding spaces, with their numbers from 1.

    Raises:
        PreparationError: As `read_text`.
    """
    # Not str.splitlines, which also splits at characters that file names may hold.
    lines = re.split(r"\r\n?|\n", read_text(path))
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def read_lines(path: pathlib.Path) -> list[str]:
    """Non-empty lines of a text file, without surrounding spaces.

    Raises:
        PreparationError: As `read_text`.
    """
    return [line for _, line in numbered_lines(path)]


def read_names(path: pathlib.Path) -> list[str]:
    """Class names, one per line. Empty lines at the end do no harm.

    Raises:
        PreparationError: As `read_text`, or if there is an empty line between names, which would shift the labels.
    """
    lines = numbered_lines(path)
    for expected, (number, _) in enumerate(lines, 1):
        if number != expected:
            raise PreparationError(f"{path}, line {expected}: expected a class name, got an empty line.")
    return [line for _, line in lines]
