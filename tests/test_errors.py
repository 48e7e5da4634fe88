"""Mistakes of the user in one line; the traceback of everything else."""

import jax.numpy as jnp
import pytest
from flax import nnx

import rsa_jax
from rsa_jax.errors import in_one_line, is_mistake
from rsa_jax.nn import registry
from rsa_jax.ops.windows import check_kernel_size, windows
from rsa_jax.training.run_log import NonFiniteLossError


def test_an_error_of_this_project_is_one_line():
    with pytest.raises(SystemExit, match=r"^ValueError: kernel_size: expected odd sizes: three"), in_one_line():
        check_kernel_size((2, 3, 3))


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("RSA_JAX_TRACEBACK", "1")
    with pytest.raises(ValueError), in_one_line():
        check_kernel_size((2, 2, 2))


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
    with pytest.raises(ValueError, match="transform_blocks: expected a tuple of blocks for stage 0, got 2"):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), transform_blocks=(2, 1, 3, 1))
    with pytest.raises(ValueError, match="^width: expected a value of type int, got 'wide'"):
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), width="wide")


def test_a_bug_in_a_layer_is_not_taken_for_a_wrong_field(monkeypatch):
    """The network names the field of an invalid setting; an error of JAX is none."""

    def broken(*args, **kwargs):
        return jnp.zeros((2, 3)) + jnp.zeros((2, 4))

    monkeypatch.setitem(registry.TRANSFORMS, "tsm", registry.Entry(broken))
    with pytest.raises((TypeError, ValueError), match="incompatible shapes") as caught:
        rsa_jax.RSANet(5, rngs=nnx.Rngs(0), transform="tsm")
    assert not is_mistake(caught.value)
