"""Weight files: what is written can be read back, and unreadable files are named."""

import sys

import numpy as np
import pytest

from rsa_jax.weights import read_state_dict, write_state_dict

STATE_DICT = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(4, 3, 2).transpose(2, 0, 1),
    "a.num_batches_tracked": np.zeros((), np.int64),
}


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
def test_what_is_written_is_read(tmp_path, name):
    write_state_dict(tmp_path / "new" / name, STATE_DICT)
    back = read_state_dict(tmp_path / "new" / name)
    assert back.keys() == STATE_DICT.keys()
    for key, array in STATE_DICT.items():
        assert (back[key].shape, back[key].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(back[key], array)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_a_file_is_not_overwritten(tmp_path):
    write_state_dict(tmp_path / "weights.npz", STATE_DICT)
    with pytest.raises(ValueError, match=r"weights.npz exists already"):
        write_state_dict(tmp_path / "weights.npz", STATE_DICT)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_named(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    write_state_dict(path, STATE_DICT)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=rf"weights{suffix}: cannot be read as {suffix}"):
        read_state_dict(path)


def test_files_that_are_not_there_or_hold_something_else(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.npz: weight file not found"):
        read_state_dict(tmp_path / "nothing.npz")
    with pytest.raises(ValueError, match=r"run: expected a weight file with extension .tar, .pth"):
        read_state_dict(tmp_path / "run")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(ValueError, match="expected arrays by name, got nothing"):
        read_state_dict(tmp_path / "empty.npz")


def test_without_pytorch_its_files_say_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "model.pth.tar").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        read_state_dict(tmp_path / "model.pth.tar")
    with pytest.raises(ImportError, match="pip install torch"):
        write_state_dict(tmp_path / "new.pth", STATE_DICT)
