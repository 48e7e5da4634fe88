"""Content of files that are and are not weights; nothing here needs PyTorch."""

import argparse
import datetime
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from rsa_jax.weights import read_state_dict
from rsa_jax.weights.content import identify
from rsa_jax.weights.state_dict import plain_name

LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def torch_zip(path, content, protocol=2):
    """A file of torch.save, as far as it can be written without PyTorch: without tensors."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol))
        archive.writestr("archive/version", "3\n")


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


OTHERS = [
    (b"", "an empty file: download"),
    (bytes(5000), "begins with zeros only"),
    (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>", "a web page"),
    (b"\xef\xbb\xbf\n <HTML lang=en>" + b"x" * 600, "a web page"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 100\n", "a Git LFS pointer.*git lfs pull"),
    (b"Entry not found", "text that begins with 'Entry not found': download"),
    (b'{"error":\n "no such file"}', "text that begins with"),
    ("ä".encode() * 400 + b"\n", "text that begins with 'ä"),
    (b"a" + "ä".encode() * 400, "text that begins with 'aä"),
    (b'model_checkpoint_path: "model.ckpt-0"\n', "a TensorFlow checkpoint"),
    (b"\x00\x01\x02" * 400 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "part of a TensorFlow checkpoint"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x1f\x8b\x08\x00", "gzip: unpack it first"),
    (tar(), "a tar archive: unpack it first"),
    (b"\x93NUMPY\x01\x00", "a single NumPy array.*numpy.savez"),
    (pickle.dumps({"a": np.zeros(3)}, 2), "a pickle that torch.save did not write.*can run code"),
    (pickle.dumps({"a": 3}, 4), "a pickle that torch.save did not write"),
    (b"\x01\xff\x02\xfe" * 40, "of an unknown format"),
]


@pytest.mark.parametrize(("content", "message"), OTHERS)
def test_what_is_no_weight_file_is_named(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights.pth: not a weight file, but .*{message}") as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_the_data_of_a_tensorflow_checkpoint_are_told_by_their_name(tmp_path):
    path = tmp_path / "model.ckpt.data-00000-of-00001"
    path.write_bytes(b"\x01\xff\x02\xfe" * 40)
    with pytest.raises(ValueError, match="part of a TensorFlow checkpoint"):
        identify(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("net/constants.pkl", "net/data.pkl", "net/code/net.py"), "a TorchScript archive.*torch.jit.load"),
        (("best.pth", "readme.txt"), "a zip archive of best.pth, readme.txt: unpack it"),
    ],
)
def test_other_zip_archives_are_named(tmp_path, names, message):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(ValueError, match=rf"a.pth: {message}"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["model.PTH", "model.pyth", "model.ckpt", "model.bin", "model"])
def test_files_of_pytorch_are_told_under_any_name(tmp_path, name):
    torch_zip(tmp_path / name, {})
    assert identify(tmp_path / name) == "torch"
    (tmp_path / name).write_bytes(LEGACY + pickle.dumps({}, 2))
    assert identify(tmp_path / name) == "torch"


def test_truncated_files_of_pytorch_are_named(tmp_path):
    path = tmp_path / "model.pth"
    torch_zip(path, {"epoch": 3})
    for content in (path.read_bytes()[:-30], LEGACY + pickle.dumps({"epoch": 3}, 2)[:-4], LEGACY):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model.pth: truncated or damaged .*: download or copy it again"):
            read_state_dict(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_never_run(tmp_path, legacy):
    content = {"state_dict": {}, "hook": Touch(tmp_path / "made"), "parser": argparse.ArgumentParser}
    path = tmp_path / "model.pth"
    if legacy:
        path.write_bytes(LEGACY + pickle.dumps(content, 2))
    else:
        torch_zip(path, content)
    with pytest.raises(ValueError, match=r"model.pth: holds more than weights.*\(io.open\); nothing was run") as error:
        read_state_dict(path)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(content, 2))["hook"].close()
    assert (tmp_path / "made").exists()


def test_objects_of_other_programs_are_named(tmp_path):
    torch_zip(tmp_path / "model.pth", {"state_dict": {}, "time": datetime.date(2020, 1, 1), "object": Touch})
    with pytest.raises(ValueError, match=r"\(tests.weights.test_content.Touch\); .*torch.save\(model.state_dict\(\)"):
        read_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("module.base_model.conv1.weight", "base_model.conv1.weight"),
        ("model.module.new_fc.bias", "new_fc.bias"),
        ("_orig_mod.net.conv1.weight", "conv1.weight"),
        ("backbone.layer1.0.bn1.bias", "layer1.0.bn1.bias"),
        ("head.fc.weight", "fc.weight"),
        ("head.weight", "head.weight"),
        ("models.module.conv1.weight", "models.module.conv1.weight"),
        ("layer1.module.weight", "layer1.module.weight"),
    ],
)
def test_prefixes_of_wrappers_are_removed(name, plain):
    assert plain_name(name) == plain


def test_a_flipped_bit_is_noticed(tmp_path):
    """Also by PyTorch's format, whose reader does not compare the checksums."""
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"content")
        archive.writestr("archive/data/0", b"values of a tensor")
    content = path.read_bytes().replace(b"values of a tensor", b"values of a TENSOR")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights.pth: truncated or damaged \(a zip archive of PyTorch or NumPy\)"):
        read_state_dict(path)
