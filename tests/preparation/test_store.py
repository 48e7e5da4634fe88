"""Names of folders, and process-wide state: imports leave it alone, and opening a data set hides GPUs."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

from rsa_jax.preparation import store
from rsa_jax.preparation.datasets import make_builder, make_config

# Prints what importing the project's modules changes, beyond what their libraries change.
IMPORTS = """
import atexit, json, os
import jax, tensorflow as tf, tensorflow_datasets
import tensorflow_datasets.core.dataset_builder, array_record.python.array_record_module, av, PIL.Image

def own(function):
    return (getattr(function, "__module__", None) or "").startswith("rsa_jax")

changes, register, set_visible_devices = [], atexit.register, tf.config.set_visible_devices
atexit.register = lambda f, *args, **kwargs: own(f) and changes.append(f.__name__) or register(f, *args, **kwargs)
tf.config.set_visible_devices = lambda *args: changes.append("visible devices") or set_visible_devices(*args)
environment, devices = dict(os.environ), tf.config.get_visible_devices()

import rsa_jax.preparation.builder, rsa_jax.preparation.datasets, rsa_jax.input_pipeline.pipeline

changes += sorted(name for name, _ in environment.items() ^ os.environ.items())
assert tf.config.get_visible_devices() == devices
print(json.dumps(changes))
"""


def test_imports_change_no_process_wide_state():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.fixture
def hidden(monkeypatch):
    """Kinds of devices hidden from TensorFlow."""
    kinds = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: kinds.append(kind) or devices)
    return kinds


def test_preparing_and_opening_hide_gpus(tmp_path, hidden):
    """Before TensorFlow is used: it takes the memory of every GPU that it sees."""
    path = store.data_path("motion/tiny", tmp_path)

    def builder():
        assert hidden == ["GPU"]
        return make_builder(path, make_config(path, num_train=10, num_validation=10))

    assert store.prepare(builder, path)
    hidden.clear()
    store.open_prepared(path)
    assert hidden == ["GPU"]


@pytest.mark.parametrize("name", ["a[0:3]", "[x]*?", "50%s", "a:b", "a\nb", "{x}", "x-00000-of-00001", "é b", "$HOME"])
def test_any_name_of_a_folder(tmp_path, name):
    path = store.data_path("motion/tiny", tmp_path / name)
    assert store.prepare(lambda: make_builder(path, make_config(path, num_train=2, num_validation=2)), path)
    assert len(list(store.open_prepared(path).as_data_source("train"))) == 2


@pytest.mark.parametrize("url", ["gs://bucket/data", "s3://bucket", "file:///data"])
def test_a_url_is_refused(url):
    with pytest.raises(store.PreparationError, match=f"data_dir '{url}' is a URL.* mount"):
        store.data_path("motion/tiny", url)


def test_a_folder_that_is_not_utf8_is_refused():
    with pytest.raises(store.PreparationError, match=r"data_dir '/data/\\udcff' is not valid UTF-8"):
        store.data_path("motion/tiny", "/data/\udcff")
