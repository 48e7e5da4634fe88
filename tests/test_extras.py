"""Packages of the extra "train", as pyproject.toml has them."""

import re
import tomllib
from pathlib import Path

from rsa_jax.extras import TRAIN

# Packages that are imported by another name.
NAMES = {"absl-py": "absl", "orbax-checkpoint": "orbax", "pillow": "PIL", "tensorflow-cpu": "tensorflow"}


def test_the_packages_are_those_of_the_extra():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    packages = {re.match(r"[\w-]+", text)[0] for text in project["optional-dependencies"]["train"]}
    assert {NAMES.get(name, name).replace("-", "_") for name in packages} == set(TRAIN)
