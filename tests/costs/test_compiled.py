"""The training step on chips that are not present."""

import importlib.util

import jax
import pytest

from rsa_jax.chips import CHIPS, Cost
from rsa_jax.costs import compiled


def test_a_batch_is_halved_until_it_fits(config, monkeypatch):
    """Some compilers refuse a program that is too large, others report the memory that it would need."""
    chip, tried = CHIPS["h100"], []

    def step_cost(config, chip):
        tried.append(config.batch_size)
        if config.batch_size > 16:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory\nand so on")
        total = int(config.batch_size / 8 * chip.memory)
        return Cost(0, total, seconds=0.25, traffic=2 * 10**9, flops=0, compilation=1, collectives=(), operations=())

    monkeypatch.setattr(compiled, "step_cost", step_cost)
    config.batch_size = 32
    lines = list(compiled.fit_batch(config, chip))
    assert tried == [32, 16, 8]
    assert lines[0] == "h100, 32 clips: does not fit into 79.1 GiB (Ran out of memory)"
    assert lines[1].startswith("h100, 16 clips: does not fit, 158.20 of 79.1 GiB")
    assert lines[2] == "h100, 8 clips: 79.10 of 79.1 GiB, 250.0 ms a step for 2.0 GB at the memory's peak"
    assert config.batch_size == 32


def test_no_batch_is_tried_that_batch_norm_refuses(config, monkeypatch):
    cost = Cost(0, 2**50, seconds=1, traffic=1, flops=0, compilation=1, collectives=(), operations=())
    monkeypatch.setattr(compiled, "step_cost", lambda config, chip: cost)
    config.model.batch_norm_clips = 2
    config.batch_size = 4
    *sizes, last = compiled.fit_batch(config, CHIPS["v5e"])
    assert [line.split(":")[0] for line in sizes] == ["v5e, 4 clips", "v5e, 2 clips"]
    assert last.startswith("v5e: no batch fits. 2 clips cannot be halved: a batch is a multiple of 2")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="the compiler for TPUs is installed")
def test_a_compiler_that_is_missing_is_named(config):
    with pytest.raises(RuntimeError, match=r"v5e: its compiler does not start \(pip install jax\[tpu\]"):
        compiled.step_cost(config, CHIPS["v5e"])
