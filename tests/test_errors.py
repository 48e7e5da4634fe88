"""Mistakes of the user in one line; the traceback of everything else."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx

import rsa_jax
from rsa_jax.errors import in_one_line, is_mistake
from rsa_jax.nn import registry
from rsa_jax.ops.windows import check_kernel_size, windows
from rsa_jax.training.run_log import NonFiniteLossError
from tests.test_main import ROOT


def test_an_error_of_this_project_is_one_line():
    with pytest.raises(SystemExit, match=r"^ValueError: kernel_size: expected odd sizes: three"), in_one_line():
        check_kernel_size((2, 3, 3))


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^FileNotFoundError: .*no_such_file"), in_one_line():
        (tmp_path / "no_such_file").read_text()


def test_an_error_of_a_library_keeps_its_traceback():
    layer = rsa_jax.RSA(8, rngs=nnx.Rngs(0))
    layer.H2 = nnx.Param(jnp.zeros((3, 1)))  # a bug in a layer: shapes that do not fit
    with pytest.raises((TypeError, ValueError)), in_one_line(TypeError):
        layer(jnp.zeros((1, 2, 4, 4, 8)))


def test_an_error_of_python_in_this_project_keeps_its_traceback():
    with pytest.raises(ValueError, match="not enough values to unpack"), in_one_line():
        windows(jnp.zeros((2, 3)), (1, 1, 1))


def test_an_error_raised_outside_of_the_package_keeps_its_traceback():
    def fail():
        raise NonFiniteLossError("x")

    with pytest.raises(NonFiniteLossError), in_one_line(NonFiniteLossError):
        fail()


def run(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_command_names_its_programs():
    assert "prepare a data set" in run("rsa_jax.cli", "--help").stdout
    unknown = run("rsa_jax.cli", "tran")
    assert unknown.returncode == 1
    assert "there is no program 'tran'" in unknown.stderr
    workdir = Path("/no/such/workdir")
    field = run("rsa_jax.cli", "train", "--config=configs/motion.py", "--workdir=/no", "--config.batchsize=8")
    assert field.returncode == 1
    assert "--config: no such field: 'batchsize' Did you mean" in field.stderr
    assert 'Did you mean "batch_size"' in field.stderr
    assert "Traceback" not in field.stderr
    summary = run("rsa_jax.cli", "summary", "--workdir", str(workdir))
    assert summary.returncode == 1
    assert "Traceback" not in summary.stderr
    assert str(workdir) in summary.stderr


def test_a_network_from_keyword_arguments():
    small = {
        "stage_sizes": (1,),
        "transform_blocks": ((0,),),
        "width": 8,
        "rsa": {"num_queries": 2, "kernel_size": (3, 3, 3)},
    }
    network = rsa_jax.RSANet(5, rngs=nnx.Rngs(0), **small)
    assert network(jnp.zeros((1, 2, 32, 32, 3)), nnx.Rngs(dropout=0)).shape == (1, 5)
    with pytest.raises(ValueError, match="^depht: expected one of the fields batch_norm_clips, "):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), depht=18)
    with pytest.raises(ValueError, match=r"^rsa\.queries: expected one of the fields"):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), rsa={"queries": 2})
    with pytest.raises(ValueError, match="^rsa: expected fields by name, got 4"):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), rsa=4)
    with pytest.raises(ValueError, match="^implementation: expected a value of type str, got 5"):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), implementation=5)
    with pytest.raises(ValueError, match="positions: expected a tuple of blocks for stage 0, got 2"):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), transform_blocks=(2, 1, 3, 1))
    with pytest.raises(ValueError, match="^width: expected a value of type int, got 'wide'"):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), width="wide")


def test_a_bug_in_a_layer_is_not_taken_for_a_wrong_field(monkeypatch):
    """The network names the field of an invalid setting; an error of JAX is none."""

    def broken(*args, **kwargs):
        return jnp.zeros((2, 3)) + jnp.zeros((2, 4))

    monkeypatch.setitem(registry._MAKERS, "tsm", broken)
    with pytest.raises((TypeError, ValueError), match="incompatible shapes") as caught:
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), transform="tsm")
    assert not is_mistake(caught.value)


def test_a_missing_package_of_an_extra_is_one_line():
    code = """
import sys
sys.modules["tensorflow"] = None
sys.argv = ["rsa-jax", "prepare", "video_folder", "--source=/no"]
from rsa_jax.cli import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "tensorflow is not installed: pip install 'rsa-jax[train]'" in result.stderr
    assert "Traceback" not in result.stderr
