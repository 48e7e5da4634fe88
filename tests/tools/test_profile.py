"""The table of costs."""

import functools
import os
import subprocess
import sys
from pathlib import Path

from rsa_jax.nn.network import count_parameters
from rsa_jax.training.models import blank_model

ROOT = Path(__file__).parents[2]


def test_the_table_sums_up_and_times(config, data_dir):
    command = [sys.executable, "-m", "rsa_jax", "profile", "--config=tests/tiny.py", "--time"]
    environment = os.environ | {"DATA_DIR": str(data_dir), "JAX_PLATFORMS": "cpu"}
    run = functools.partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True)
    refused = run(command)
    assert refused.returncode == 1
    assert "model.num_classes: expected a number" in refused.stderr
    lines = run([*command, "--config.model.num_classes=10"], check=True).stdout.splitlines()
    total = next(line for line in lines if line.startswith("total")).split()
    config.model.num_classes = 10
    assert int(total[1].replace(",", "")) == count_parameters(blank_model(config.model))
    rows = [float(line.split()[-1]) for line in lines[1 : lines.index("")] if not line.startswith("total")]
    assert sum(rows) > 0
    assert abs(sum(rows) - float(total[-1])) < 0.01 * len(rows)
    assert "The whole network on cpu: forward" in lines[-1]
