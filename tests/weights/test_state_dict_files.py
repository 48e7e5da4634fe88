"""Weight files: what is written can be read back, and unreadable files are named."""

import os
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rsa_jax.weights import read_state_dict, write_state_dict
from tests.weights.test_content import torch_zip

STATE_DICT = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(4, 3, 2).transpose(2, 0, 1),
    "a.num_batches_tracked": np.zeros((), np.int64),
}


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "weights.NPZ", "weights.SafeTensors"])
def test_what_is_written_is_read(tmp_path, name):
    write_state_dict(tmp_path / "new" / name, STATE_DICT)
    back = read_state_dict(tmp_path / "new" / name)
    assert back.keys() == STATE_DICT.keys()
    for key, array in STATE_DICT.items():
        assert (back[key].shape, back[key].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(back[key], array)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize("name", ["weights", "weights.bin", "weights.pth", "weights.npz.1"])
def test_the_content_determines_the_format(tmp_path, name):
    for extension in (".npz", ".safetensors"):
        write_state_dict(tmp_path / f"weights{extension}", STATE_DICT)
        (tmp_path / f"weights{extension}").replace(tmp_path / name)
        np.testing.assert_array_equal(read_state_dict(tmp_path / name)["a.weight"], STATE_DICT["a.weight"])


def test_a_file_is_not_overwritten(tmp_path):
    write_state_dict(tmp_path / "weights.npz", STATE_DICT)
    with pytest.raises(ValueError, match=r"weights.npz exists already$"):
        write_state_dict(tmp_path / "weights.npz", STATE_DICT)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match=r"folder.npz exists already and is a folder"):
        write_state_dict(tmp_path / "folder.npz", STATE_DICT)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("kept", [40, -8])
def test_a_damaged_file_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"weights{suffix}"
    write_state_dict(path, STATE_DICT)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"weights{suffix}: truncated or damaged .*: download or copy it again"):
        read_state_dict(path)


def test_a_damaged_array_is_named(tmp_path):
    path = tmp_path / "weights.npz"
    write_state_dict(path, STATE_DICT)
    content = path.read_bytes()
    at = content.index(STATE_DICT["a.weight"].tobytes("A")[:16])
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with pytest.raises(ValueError, match=r"weights.npz: truncated or damaged"):
        read_state_dict(path)


def test_files_that_are_not_there_or_hold_something_else(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.npz: weight file not found"):
        read_state_dict(tmp_path / "nothing.npz")
    with pytest.raises(ValueError, match=r"expected a weight file, got a folder"):
        read_state_dict(tmp_path)
    with pytest.raises(ValueError, match=r"run: expected a weight file with extension .tar, .pth"):
        write_state_dict(tmp_path / "run", STATE_DICT)
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(ValueError, match="expected arrays by name, got nothing"):
        read_state_dict(tmp_path / "empty.npz")


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="objects.npz: holds Python objects, .* save arrays of numbers$"):
        read_state_dict(tmp_path / "objects.npz")


def test_types_that_numpy_lacks_are_refused(tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes().replace(b'"F32","shape":[2]', b'"F8_E5M2","shape":[8]')
    header = int.from_bytes(content[:8], "little")
    start = content.index(b"{")
    text = content[start : start + header + 4].rstrip(b"\x00 ")
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ValueError, match="a.safetensors: holds numbers of an unknown type"):
        read_state_dict(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_values_that_are_not_finite_are_counted(tmp_path, name, bad):
    broken = np.zeros((2, 3), np.float32)
    broken[0, 1:] = bad
    arrays = dict.fromkeys(("b", "c", "d", "e"), broken) | {"n": np.zeros(3, np.int64)}
    write_state_dict(tmp_path / name, STATE_DICT | arrays)
    message = (
        rf"{name}: NaN or infinite: 8 of 52 values, in 4 of 7 tensors: b \(2 of 6\), c \(2 of 6\), d \(2 of 6\), ..."
    )
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / name)


def test_half_precision_is_checked_as_well(tmp_path):
    for dtype in (np.float16, ml_dtypes.bfloat16):
        path = tmp_path / f"{np.dtype(dtype).name}.safetensors"
        safetensors.numpy.save_file({"a": np.array([1, np.nan]).astype(dtype)}, path)
        with pytest.raises(ValueError, match=r"NaN or infinite: 1 of 2 values, in 1 of 1 tensors: a \(1 of 2\); "):
            read_state_dict(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_that_cannot_be_written_is_named(tmp_path, suffix):
    (tmp_path / "file").write_bytes(b"")
    names = {
        f"file/weights{suffix}": "(Not a directory|File exists)",
        f"{'w' * 250}{suffix}": "File name too long",
    }
    for name, reason in names.items():
        with pytest.raises(OSError, match=rf"{name}: cannot be written: {reason}"):
            write_state_dict(tmp_path / name, STATE_DICT)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_without_permission_is_named(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"locked/weights.npz: cannot be written: Permission denied"):
        write_state_dict(tmp_path / "locked/weights.npz", STATE_DICT)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_full_disk_is_named(tmp_path, suffix):
    (tmp_path / f"w{suffix}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"w{suffix}: cannot be written: No space left on device"):
        write_state_dict(tmp_path / f"w{suffix}", STATE_DICT)


def test_without_pytorch_its_files_say_how_to_get_it(tmp_path, monkeypatch):
    torch_zip(tmp_path / "model.pth.tar", {"state_dict": {}})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        read_state_dict(tmp_path / "model.pth.tar")
    with pytest.raises(ImportError, match="pip install torch"):
        write_state_dict(tmp_path / "new.pth", STATE_DICT)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth.tar"]
