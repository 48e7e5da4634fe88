"""Importing a module changes nothing in the process, and drawing needs no backend."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CODE = """
import importlib, os, pkgutil, signal, sys
import jax, matplotlib, tensorflow  # these set variables of the environment themselves

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return dict(os.environ), handlers, dict.__getitem__(matplotlib.rcParams, "backend"), list(sys.path)

before = state()
for package in sys.argv[1:]:
    imported = importlib.import_module(package)
    for module in pkgutil.iter_modules(imported.__path__, f"{package}."):
        importlib.import_module(module.name)
        print(module.name)
assert state() == before
"""


@pytest.mark.parametrize("package", ["pictures", "studies", "tools", "costs"])
def test_imports_change_no_state(package):
    command = [sys.executable, "-c", CODE, f"rsa_jax.{package}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    names = {f"rsa_jax.{package}.{path.stem}" for path in (ROOT / "rsa_jax" / package).glob("*.py")}
    assert set(result.stdout.split()) == names - {f"rsa_jax.{package}.__init__"}


def imported(path):
    """Names of the modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", ["rsa_jax.tools", "matplotlib.pyplot"])
def test_no_module_imports_programs_or_pyplot(name):
    """Programs are run, not imported; pyplot chooses a backend for the whole process."""
    files = [*(ROOT / "rsa_jax").rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    assert [path for path in files if any(f"{module}.".startswith(f"{name}.") for module in imported(path))] == []
