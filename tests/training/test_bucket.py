"""A workdir in a bucket: everything that a run writes is there, and can be read again."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gcsfs")
pytest.importorskip("gcp_storage_emulator")

ROOT = Path(__file__).parents[2]


def test_a_run_in_a_bucket(tmp_path, data_dir):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    emulator = f"http://localhost:{port}"
    # gcsfs and TensorStore ask the emulator; TensorFlow's file system, which etils prefers, cannot.
    environment = {
        "STORAGE_EMULATOR_HOST": emulator,
        "TENSORSTORE_GCS_HTTP_URL": emulator,
        "EPATH_USE_TF": "false",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_GCE_CHECK": "true",
        "GCE_METADATA_HOST": "localhost:1",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.bucket", str(data_dir), str(port)],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["done"] == [False, True]
    assert len(set(found["top1"])) == 1
    assert found["steps"] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert {"config.json", "dataset.json", "checkpoints", "eval.json", "report.html"} <= set(found["files"])
    assert found["events"] >= 2
    assert found["probability"] == pytest.approx(1)
    assert not list(tmp_path.iterdir())  # no local folder "gs:"
