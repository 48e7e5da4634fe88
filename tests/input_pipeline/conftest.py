import json
import shutil

import pytest

from rsa_jax.settings import data_config
from tests.input_pipeline.tiny import changed

# pytest loads this file in every process, even where it only distributes tests: TensorFlow is imported in the fixtures.


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    """Configuration of `motion/tiny`, drawn once. Clips have 4 frames."""
    from rsa_jax.input_pipeline.dataset_info import load_info

    data = data_config()
    data.name = "motion/tiny"
    data.data_dir = str(tmp_path_factory.mktemp("data"))
    data.num_frames = 4
    load_info(data)
    return data


@pytest.fixture
def copied(data, tmp_path):
    """A copy to damage: its configuration, its folder, and the file of its validation split."""
    from rsa_jax.preparation.store import data_path

    shutil.copytree(data.data_dir, tmp_path / "data")
    data = changed(data, data_dir=str(tmp_path / "data"))
    path = data_path(data.name, data.data_dir)
    return data, path, next(path.glob("*validation*"))


@pytest.fixture
def without_index(copied):
    """The copy as version 0.1 prepared it: nothing tells where the frames are."""
    data, path, shard = copied
    metadata = json.loads((path / "metadata.json").read_text())
    for index in path.glob("*.frames.npz"):
        index.unlink()
        del metadata["files"][index.name]
    (path / "metadata.json").write_text(json.dumps(metadata))
    return data, path, shard
