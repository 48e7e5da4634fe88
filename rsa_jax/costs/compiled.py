"""Estimated memory and time of the training step on a chip that need not be present, by the chip's compiler."""

from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from rsa_jax.chips import Chip, Cost, compile_for
from rsa_jax.training.step import lower_train_step

# Stored frame size if no data set defines it: that of videos prepared with a short side of 240.
FRAME_SIZE = (240, 320)
GIB = 2**30


def step_cost(config: ConfigDict, chip: Chip) -> Cost:
    """Estimated cost of the training step, compiled for one chip.

    Args:
        config: configuration of a run, with `model.num_classes` set.
        chip: kind of chip.

    Raises:
        RuntimeError: If the compiler is not installed.
        jax.errors.JaxRuntimeError: If compilation fails, for example for lack of memory.
        ValueError: If a field of the configuration is invalid.
    """
    return compile_for(chip, lower_train_step(config, chip.mesh(), FRAME_SIZE))


def fit_batch(config: ConfigDict, chip: Chip) -> Iterator[str]:
    """Describe the training step on one chip, one line per batch size: the configured one, halved until it fits."""
    config = config.copy_and_resolve_references()
    # Every chunk of the gradient accumulation consists of whole ghost batches.
    unit = max(1, config.model.batch_norm_clips) * config.optimizer.accumulation
    while True:
        name, most = f"{chip.name}, {config.batch_size} clips", f"{chip.memory / GIB:.1f} GiB"
        try:
            cost = step_cost(config, chip)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield f"{name}: does not fit into {most} ({_first_line(error)})"
        else:
            fits = cost.total <= chip.memory
            needs = f"{cost.total / GIB:.2f} of {most}" if fits else f"does not fit, {cost.total / GIB:.2f} of {most}"
            yield f"{name}: {needs}, {_time(cost, chip)}"
            if fits:
                return
        if config.batch_size % (2 * unit):
            yield (
                f"{chip.name}: no batch fits. {config.batch_size} clips cannot be halved: a batch is a multiple of "
                f"{unit} (model.batch_norm_clips, optimizer.accumulation). model.remat=True saves memory."
            )
            return
        config.batch_size //= 2


def _time(cost: Cost, chip: Chip) -> str:
    if chip.clock:
        return f"{1e3 * cost.seconds:.1f} ms a step by the compiler's estimate"
    return f"{1e3 * cost.seconds:.1f} ms a step for {cost.traffic / 1e9:.1f} GB at the memory's peak"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
