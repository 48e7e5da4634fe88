"""Arguments of the programs."""

import argparse
import ast
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from rsa_jax.files import is_remote


class Parser(argparse.ArgumentParser):
    """Argument parser of a program. A mistake is one line on standard error, with exit status 2.

    Args:
        program: name of the program, as in `rsa-jax PROGRAM`.
        description: text above the arguments in the help.
        options: further arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, program: str, description: str, **options: Any):
        # Abbreviations would take --conf for --config, and change their meaning with every new flag.
        super().__init__(
            f"rsa-jax {program}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Print the message, and exit with status 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def parse_with_config(parser: Parser, argv: Sequence[str] | None, required: bool = True) -> argparse.Namespace:
    """Parse the arguments of a program that has a configuration.

    `--config FILE` names a file with a function `get_config`; `--config.field=value` changes a field, and
    `--config.field` and `--noconfig.field` set one that is True or False.

    Args:
        parser: parser of all other arguments.
        argv: arguments; None: those of the process.
        required: whether --config must be given.

    Returns:
        The arguments, and among them `config`, the locked configuration, `config_file`, its file, and `changes`, the
        changed fields by dotted name. Without --config: None, None and {}.

    Raises:
        SystemExit: With status 2, if an argument, the file, a field or its value is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser.add_argument(
        "--config", required=required, metavar="FILE", help="a file of configs/; --config.x=y changes its field x"
    )
    file = _config_file(parser.prog, words)
    for word in words:
        if re.match("--?(flagfile|undefok)(=|$)", word):  # absl would take them
            parser.error(f"unrecognized arguments: {word}")
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may follow positional arguments
    config_flags.DEFINE_config_file("config", None, lock_config=True, flag_values=values, sys_argv=words)
    try:
        _, *rest = values([parser.prog, *words], known_only=True)
    except Exception as error:
        if file is None or _is_bug(error, file):
            raise
        parser.error(_reason(error, file))
    flag = values["config"]
    if file is not None and not isinstance(flag.value, ConfigDict):
        parser.error(f"--config: {file}: get_config could not read a file, or returned no ConfigDict")
    # The file again, for the check whether it is required.
    args = parser.parse_args([*(["--config", file] if file is not None else []), *rest])
    if file is not None:
        _check(flag.value, file, parser)
    args.config, args.config_file = flag.value, file
    args.changes = config_flags.get_override_values(flag) if file is not None else {}
    return args


def _check(config: ConfigDict, file: str, parser: Parser) -> None:
    from rsa_jax.settings import check_config  # imports JAX, which programs without a configuration start without

    try:
        check_config(config)
    except AttributeError as error:
        start = "begin with rsa_jax.settings.default_config()"
        parser.error(f"--config: {file}: there is no field {_unquote(str(error.args[0]))}; {start}")
    except ValueError as error:
        parser.error(f"--config: {error}")


def _config_file(prog: str, words: Sequence[str]) -> str | None:
    """Value of --config. Exit with status 2 if it cannot be read."""
    parser = Parser(prog.removeprefix("rsa-jax "), "", add_help=False)
    parser.add_argument("--config")
    file = parser.parse_known_args(words)[0].config
    if file is not None:
        try:
            Path(file).read_bytes()
        except OSError as error:
            parser.error(f"--config: {error.strerror}: {file!r}")
    return file


def _is_bug(error: BaseException, file: str) -> bool:
    """Whether code of the configuration file raised the error, which then keeps its traceback."""
    if isinstance(error, ImportError | SyntaxError):
        return False
    cause: BaseException | None = error
    while cause is not None:  # absl and ml_collections re-raise some errors as others
        if any(frame.filename == file for frame in traceback.extract_tb(cause.__traceback__)):
            return True
        cause = cause.__context__
    return not isinstance(error, flags.Error | AttributeError | KeyError | TypeError | ValueError)


def _reason(error: Exception, file: str) -> str:
    """Description of a mistake in --config or in one of its fields."""
    if isinstance(error, ImportError | SyntaxError):
        return f"--config: {file}: {type(error).__name__}: {error}"
    if isinstance(error, AttributeError) and error.name == "get_config":
        return f"--config: {file}: there is no function get_config"
    if isinstance(error, flags.Error):
        return str(error).removeprefix("flag ")  # it names the flag
    if isinstance(error, AttributeError | KeyError):
        return f"--config: no such field: {_unquote(str(error.args[0]))}"
    return f"--config: {error}"


def _unquote(text: str) -> str:
    """The message of an error that ml_collections may have raised as the argument of a KeyError, once or twice."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return _unquote(value) if isinstance(value, str) else text


def folder(text: str) -> Path:
    """Argument type: the path of a folder on a file system, which need not exist."""
    if not text or is_remote(text):
        raise argparse.ArgumentTypeError(f"expected a folder on a file system, got {text!r}")
    return Path(text).expanduser()


def folder_or_url(text: str) -> epath.Path:
    """Argument type: a path on a file system, or a URL of a bucket; it need not exist."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, got ''")
    return epath.Path(text) if is_remote(text) else epath.Path(text).expanduser()


def at_least(minimum: int) -> Callable[[str], int]:
    """Argument type: an integer of at least `minimum`."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal():
            raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}")
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"expected at least {minimum}, got {text}")
        return int(text)

    return number
