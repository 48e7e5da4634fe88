"""Files of PyTorch: weights are read, whatever stands beside them, and no code is run."""

import argparse
import collections
import datetime
import pathlib
import sys
import types

import numpy as np
import pytest

from rsa_jax.settings import default_config
from rsa_jax.weights import read_state_dict, write_state_dict

pytestmark = pytest.mark.torch


@pytest.fixture
def torch():
    import torch

    return torch


def test_files_of_pytorch(torch, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"module.a": torch.ones(2, dtype=torch.bfloat16), "epoch": 3}, path)
    assert list(read_state_dict(path)) == ["a"]
    write_state_dict(tmp_path / "a.safetensors", read_state_dict(path))
    torch.save({"state_dict": default_config()}, path)
    with pytest.raises(ValueError, match=r"weights.pth: holds more than weights.*ml_collections.* nothing was run"):
        read_state_dict(path)
    path.write_bytes(b"nothing of PyTorch")
    with pytest.raises(ValueError, match=r"weights.pth: not a weight file, but text that begins with 'nothing of PyT"):
        read_state_dict(path)


class EasyDict(dict):
    """Subclass of dict, as configurations are."""


EasyDict.__module__ = "easydict"
BESIDE = {
    "best_prec1": np.float64(54.0),
    "curve": np.arange(3.0),
    "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a"), dtype=np.dtype("f4")),
    "time": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "meters": collections.defaultdict(list, loss=[1.0]),
    "recent": collections.deque([1, 2], maxlen=3),
    "order": collections.OrderedDict(a=1),
    "count": collections.Counter(a=1),
    "plain": ["text", b"bytes", b"", 1j, range(3), slice(1), frozenset([1]), {2}, None, True],
    "random": np.random.default_rng(0),
    "config": EasyDict(lr=0.1),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("beside", BESIDE)
def test_harmless_objects_beside_the_weights(torch, tmp_path, beside, legacy, recwarn, monkeypatch):
    monkeypatch.setitem(sys.modules, "easydict", types.SimpleNamespace(EasyDict=EasyDict))
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    content = {beside: BESIDE[beside], "state_dict": {"module.a": weight}, "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "w.pyth", _use_new_zipfile_serialization=not legacy)
    monkeypatch.delitem(sys.modules, "easydict")
    back = read_state_dict(tmp_path / "w.pyth")
    assert list(back) == ["a"]
    np.testing.assert_array_equal(back["a"], weight.detach().numpy())
    assert all(entry.__module__.startswith("torch") for entry in torch.serialization.get_safe_globals())
    assert not list(recwarn)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (lambda w: {"epoch": 1, "model_state": {"module.fc.weight": w}, "cfg": "a: 1"}, ["fc.weight"]),
        (lambda w: {"state_dict": {"model.backbone.conv1.weight": w, "model.head.fc.bias": w}}, None),
        (lambda w: {"model_state_dict": {"new_fc.bias": w}, "epoch": 3}, ["new_fc.bias"]),
        (lambda w: {"model": {"state_dict": {"_orig_mod.a": w}}, "model_ema": {"a": w}}, ["a"]),
        (lambda w: {"a": w, 3: w, "epoch": 3}, ["a"]),
    ],
)
def test_nested_state_dicts_of_other_toolkits(torch, tmp_path, content, names):
    torch.save(content(torch.ones(2)), tmp_path / "weights")
    assert list(read_state_dict(tmp_path / "weights")) == (names or ["conv1.weight", "fc.bias"])


def test_what_holds_no_weights_by_name_is_named(torch, tmp_path):
    path = tmp_path / "weights.pth"
    messages = {
        "expected arrays by name, got epoch, a, b, c, d, ...$": dict.fromkeys(("epoch", *"abcde"), 1),
        "expected weights by name, got a list. .*state_dict": [torch.ones(2)],
        r"a: has a shape but no values \(PyTorch's meta device\)": {"state_dict": {"a": torch.ones(2, device="meta")}},
        r"NaN or infinite: 1 of 2 values, in 1 of 1 tensors: a \(1 of 2\)": {"a": torch.tensor([1.0, torch.nan])},
        r"torch.nn.modules.linear.Linear.*torch.save\(model.state_dict\(\), FILE\)": torch.nn.Linear(2, 2),
        "a: cannot be converted to an array": {"a": torch.eye(2).to_sparse()},
    }
    for message, content in messages.items():
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"weights.pth: .*{message}") as error:
            read_state_dict(path)
        assert "weights_only" not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run(torch, tmp_path, legacy):
    """Also where a name is of PyTorch itself, or of a package whose objects are left out."""
    path = tmp_path / "weights.pth"
    for call in (torch.save, np.save, np.testing.assert_equal, open):
        hook = Call(call, (tmp_path / "made", "w") if call is open else (3, str(tmp_path / "made")))
        torch.save({"state_dict": {"a": torch.ones(2)}, "hook": hook}, path, _use_new_zipfile_serialization=not legacy)
        if call.__module__.startswith("numpy"):
            assert list(read_state_dict(path)) == ["a"]
        else:
            with pytest.raises(ValueError, match="nothing was run"):
                read_state_dict(path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pth"]


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files_are_named(torch, tmp_path, legacy):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for size in (len(content) - 100, len(content) // 2, 200):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="weights.pth: truncated or damaged .* download or copy it again") as error:
            read_state_dict(path)
        assert "\n" not in str(error.value)


def test_other_protocols_of_pickle_are_refused_in_one_line(torch, tmp_path, recwarn):
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pth", pickle_protocol=4)
    with pytest.raises(ValueError, match="weights.pth: holds more than weights") as error:
        read_state_dict(tmp_path / "weights.pth")
    assert "weights_only" not in str(error.value)
    assert not list(recwarn)


def test_upper_case_and_full_disks(torch, tmp_path):
    write_state_dict(tmp_path / "new/W.PTH", {"a": np.ones(2)})
    assert list(torch.load(tmp_path / "new/W.PTH", weights_only=True)["state_dict"]) == ["module.a"]
    (tmp_path / "w.pth.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"w.pth: cannot be written: No space left on device"):
        write_state_dict(tmp_path / "w.pth", {"a": np.ones(1_000_000)})
