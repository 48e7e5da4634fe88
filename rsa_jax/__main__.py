"""The command `rsa-jax`, which runs the programs of rsa_jax/tools. `python -m rsa_jax` is the same command."""

import ast
import importlib
import importlib.metadata
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rsa_jax.extras import TRAIN, MissingPackageError, missing

_EVAL = "Evaluate a checkpoint: train with --mode eval."


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the program that the first argument names, with the arguments behind it.

    Raises:
        SystemExit: If there is no such program, its arguments are wrong, or a package that it needs is missing.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    programs = describe_programs()
    if name == "--version":
        try:
            print(importlib.metadata.version("rsa-jax"))
        except importlib.metadata.PackageNotFoundError:
            return _refuse("rsa-jax is not installed; pyproject.toml has the version of a clone")
        return 0
    if name in ("-h", "--help"):
        print(_usage(programs))
        return 0
    if name not in programs:
        return _refuse(f"rsa-jax: there is no program {name!r}; there are {', '.join(programs)}")
    if name == "eval":
        if any(word.partition("=")[0] == "--mode" for word in rest):
            return _refuse("rsa-jax eval: unrecognized arguments: --mode; eval is train with --mode eval")
        name, rest = "train", ["--mode", "eval", *rest]
    # TensorFlow reads its log level on import. JAX sets it to 1 on import, at which TensorFlow still prints.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    # With oneDNN, TensorFlow prints a notice at every log level. It only reads data here, without oneDNN.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: recipes import the folder of recipes
    try:
        return importlib.import_module(f"rsa_jax.tools.{name}").main(rest)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except MissingPackageError as error:
        raise SystemExit(str(error)) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN:
            raise
        raise SystemExit(str(missing(error, "train"))) from error


def describe_programs() -> dict[str, str]:
    """First docstring line of every program, by its name. Nothing is imported: the packages of a program may lack."""
    folder = Path(__file__).parent / "tools"
    lines = {}
    for module in pkgutil.iter_modules([str(folder)]):
        text = ast.get_docstring(ast.parse((folder / f"{module.name}.py").read_text(encoding="utf-8"))) or ""
        lines[module.name] = text.partition("\n")[0]
    return dict(sorted((lines | {"eval": _EVAL}).items()))


def _usage(programs: dict[str, str]) -> str:
    lines = [f"  {name:<10} {line}" for name, line in programs.items()]
    return "\n".join(["usage: rsa-jax PROGRAM [arguments]; rsa-jax PROGRAM --help", "", *lines])


def _refuse(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
