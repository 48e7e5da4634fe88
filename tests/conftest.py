import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

from tests.tiny import tiny_config


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where prepared data sets lie; `motion/tiny` is drawn here once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data_dir):
    """The smallest run: 4 steps an epoch, 2 epochs, one RSA block."""
    return tiny_config(data_dir)
