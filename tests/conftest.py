import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation takes most of the time, and several runs compile the same programs. Workers inherit the cache folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import pytest

from tests.tiny import tiny_config

# These take minutes each: if started last, they would keep one worker busy while the others are idle.
LONGEST = ("test_trajectory.py", "test_main.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Folder of prepared data sets; `motion/tiny` is drawn here once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data_dir):
    """The smallest run: 4 steps per epoch, 2 epochs, one RSA block."""
    return tiny_config(data_dir)
