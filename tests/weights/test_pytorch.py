"""PyTorch files, and a PyTorch network under the released names, in both directions."""

import json
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsa_jax.nn.model_config import model_config as default_model_config
from rsa_jax.training.models import blank_model, load_model
from rsa_jax.weights import load_torch, to_torch
from tests import golden_files
from tests.tools.test_convert import run

pytestmark = pytest.mark.torch

SHAPES = golden_files.read("state_dict_shapes")
CASE = "c"


@pytest.fixture
def torch():
    import torch

    return torch


@pytest.fixture
def released(torch, tmp_path):
    """A checkpoint file as saved by the authors' training code."""
    tensors = {f"module.{name}": torch.from_numpy(array) for name, array in golden_files.state_dict(SHAPES).items()}
    path = tmp_path / "released.pth.tar"
    torch.save({"epoch": 80, "arch": "resnet50", "state_dict": tensors, "best_prec1": torch.tensor(54.0)}, path)
    return path


def test_released_checkpoint_evaluates_and_goes_back(torch, released, tmp_path, data_dir):
    """Two commands, where the first prints the second; the reference's logits; a file that PyTorch loads strictly."""
    workdir, back = tmp_path / "workdir", tmp_path / "back.pth.tar"
    small = ["--config.data.name=motion/tiny", f"--config.data.data_dir={data_dir}", "--config.data.image_size=64"]
    small += ["--config.data.num_frames=4", "--config.eval.batch_size=16"]
    command = ["-m", "rsa_jax", "convert", released, workdir, "--config", "configs/ssv1.py", *small]
    said = run(*command, data_dir=data_dir)
    run(*shlex.split(said.splitlines()[-1])[1:], data_dir=data_dir)
    assert json.loads((workdir / "eval.json").read_text())["num_examples"] == 32

    graph, state = nnx.split(load_model(workdir))
    clips = golden_files.recipe.clips(f"network.{CASE}", tuple(golden_files.read("network")[CASE]["input_shape"]))
    logits = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, clips)
    published = golden_files.arrays("network")[f"{CASE}/logits"]
    np.testing.assert_allclose(logits, published, rtol=0, atol=1e-4 * np.max(np.abs(published)))

    run("-m", "rsa_jax", "convert", workdir, back, data_dir=data_dir)
    there, here = (torch.load(path, weights_only=True) for path in (released, back))
    assert there.keys() == here.keys()
    there, here = there["state_dict"], here["state_dict"]
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in there)

    from benchmarks.pytorch_peer import RSANet

    network = torch.nn.DataParallel(RSANet(174))
    network.load_state_dict(here, strict=True)
    with torch.no_grad():
        theirs = network.eval()(torch.from_numpy(clips.transpose(0, 4, 1, 2, 3).copy()))
    np.testing.assert_allclose(theirs.numpy(), published, rtol=0, atol=1e-4 * np.max(np.abs(published)))


def test_training_mode_moves_the_statistics_as_pytorch_does(torch):
    """Odd sizes, so that the padding of strided layers and of the max-pool matters at both ends."""
    from benchmarks.pytorch_peer import RSANet

    torch.manual_seed(0)
    theirs = RSANet(5).train()
    config = default_model_config()
    config.update(num_classes=5, dropout=0.0)
    model = blank_model(config)
    load_torch(model, theirs.state_dict())
    clips = golden_files.recipe.clips("pytorch.train", (2, 2, 45, 51, 3))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(clips.transpose(0, 4, 1, 2, 3).copy()))
    graph, state = nnx.split(model)

    @jax.jit
    def step(state, x):
        model = nnx.merge(graph, state)
        return model(x), nnx.state(model)

    logits, state = step(state, jnp.asarray(clips))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-3, atol=1e-4)
    ours = to_torch(nnx.merge(graph, state))
    for name, tensor in theirs.state_dict().items():
        if "running" in name:
            np.testing.assert_allclose(ours[name], tensor.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)


def test_bfloat16_tensors_are_loaded(torch):
    config = default_model_config()
    config.update(num_classes=3, depth=18, width=8, stage_sizes=(1,), transform_blocks=((),))
    model = blank_model(config)
    load_torch(model, {name: torch.full(a.shape, 0.5, dtype=torch.bfloat16) for name, a in to_torch(model).items()})
    np.testing.assert_array_equal(model.fc.bias[...], 0.5)
