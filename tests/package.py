"""Build wheel and sdist, and use the wheel in an environment with the base package's requirements only.

python -m tests.package, or make test-package
"""

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Run in a folder without this repository.
CODE = """
import importlib.util, sys
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
import rsa_jax

layer = rsa_jax.RSA(8, num_queries=2, kernel_size=(3, 3, 3), rngs=nnx.Rngs(0))
x = jax.random.normal(jax.random.key(0), (1, 4, 5, 5, 8))
assert layer(x).shape == x.shape
kernels = layer.kernels(x, (1, 2, 2))
assert {name: kernel.shape for name, kernel in kernels.items()} == dict.fromkeys(kernels, (1, 2, 3, 3, 3))
assert set(kernels) == {"basic", "relational"}

small = dict(stage_sizes=(1,), transform_blocks=((0,),), width=8, rsa={"num_queries": 2, "kernel_size": (3, 3, 3)})
networks = [rsa_jax.RSANet(5, rngs=nnx.Rngs(seed), **small) for seed in (0, 1)]
rsa_jax.weights.write_state_dict("weights.safetensors", rsa_jax.weights.to_torch(networks[0]))
rsa_jax.weights.load_torch(networks[1], rsa_jax.weights.read_state_dict("weights.safetensors"))
clips = jnp.ones((1, 2, 32, 32, 3))
logits = []
for network in networks:
    network.eval()
    logits.append(network(clips))
    assert network.feature_maps(clips)[-1].shape == (1, 2, 8, 8, 32)
assert np.array_equal(*logits)

for package in ("tensorflow", "clu", "av", "matplotlib", "torch"):
    assert importlib.util.find_spec(package) is None, package
try:
    import rsa_jax.preparation.builder
except ImportError as error:
    assert "pip install '.[train]' in a clone" in str(error), error
else:
    raise AssertionError("data sets without TensorFlow")
"""


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """The output of a command, which must succeed."""
    result = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def main() -> None:
    """Build, install and use the package."""
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), Path(name) / "source"
        # A copy, so that nothing that an earlier build left gets into this one.
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "demo"))
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as contents:
            names = contents.namelist()
        for needed in ("rsa_jax/py.typed", "rsa_jax/evaluation/report/report.css", "rsa_jax/ops/gpu/forward.py"):
            assert needed in names, needed
        build = f"import setuptools.build_meta as build; build.build_sdist({str(folder)!r})"
        builder = folder / "builder"
        venv.create(builder, with_pip=True)
        run(builder / "bin" / "pip", "install", "--quiet", "setuptools>=77")
        run(builder / "bin" / "python", "-c", build, folder=source)
        (sdist,) = folder.glob("*.tar.gz")
        environment = folder / "environment"
        venv.create(environment, with_pip=True)
        run(environment / "bin" / "pip", "install", "--quiet", wheel, "-c", ROOT / "requirements.txt")
        run(environment / "bin" / "python", "-c", CODE, folder=folder)
        command = environment / "bin" / "rsa-jax"
        assert "Prepare a data set" in run(command, "--help", folder=folder)
        missing = subprocess.run([command, "train"], cwd=folder, capture_output=True, text=True)
        assert missing.returncode == 1
        assert "pip install '.[train]' in a clone" in missing.stderr, missing.stderr
        assert "Traceback" not in missing.stderr, missing.stderr

        run(environment / "bin" / "pip", "install", "--quiet", "--no-deps", "--force-reinstall", sdist)
        run(environment / "bin" / "python", "-c", CODE, folder=builder)
    print("The package works by itself.")


if __name__ == "__main__":
    main()
