"""Twelve steps of the published training: learning rates, losses, gradients, parameters and statistics."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests import golden_files
from tests.test_main import ROOT


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """This project's results, by dtype. Both runs start at once, as most of the time is compilation."""
    folder = tmp_path_factory.mktemp("trajectory")

    def start(dtype):
        environment = os.environ | {"JAX_ENABLE_X64": str(int(dtype == "float64")), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "tests.training.trajectory", dtype, folder / f"{dtype}.npz"]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    for process in [start("float64"), start("float32")]:
        output, _ = process.communicate()
        assert process.returncode == 0, output.decode()
    return {dtype: np.load(folder / f"{dtype}.npz") for dtype in ("float64", "float32")}


def test_float64_is_the_published_run_to_rounding(ours):
    run, golden = ours["float64"], golden_files.arrays("trajectory_float64")
    for name in ("losses", "gradient_norms", "eval_logits"):
        assert run[name].dtype == np.float64
        np.testing.assert_allclose(run[name], golden[name], rtol=1e-10, atol=1e-11 * np.max(np.abs(golden[name])))
    np.testing.assert_array_max_ulp(run["learning_rates"], golden["learning_rates"], maxulp=1)
    final = golden_files.read("trajectory_float64")["final_sum_and_norm"]
    assert len(final) == sum(name.startswith("final/") and not name.endswith("tracked") for name in run.files)
    for name, (total, norm) in final.items():
        array = run[f"final/{name}"]
        np.testing.assert_allclose(np.linalg.norm(array), norm, rtol=1e-10)
        np.testing.assert_allclose(array.sum(), total, rtol=0, atol=1e-10 * norm)


def test_float32_drifts_no_further_than_the_published_run(ours):
    """Rounding errors grow by a factor of hundreds in some steps of both runs; the float64 run is the ground truth."""
    run, published, truth = (
        ours["float32"],
        golden_files.arrays("trajectory"),
        golden_files.arrays("trajectory_float64"),
    )
    assert run["losses"].dtype == np.float32
    np.testing.assert_allclose(run["losses"][0], published["losses"][0], rtol=1e-5)
    np.testing.assert_allclose(run["gradient_norms"][0], published["gradient_norms"][0], rtol=1e-3)
    np.testing.assert_allclose(run["learning_rates"], published["learning_rates"], rtol=1e-6)
    for name in ("losses", "gradient_norms"):
        drift, allowed = (np.abs(x[name] / truth[name] - 1) for x in (run, published))
        assert drift[1] < 5 * allowed[1]
        assert np.max(drift) < 2 * np.max(allowed)
    drift, allowed = (np.max(np.abs(x["eval_logits"] - truth["eval_logits"])) for x in (run, published))
    assert drift < 2 * allowed
