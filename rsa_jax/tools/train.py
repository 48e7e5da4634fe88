"""Trains or evaluates: rsa-jax train --config configs/ssv2.py --workdir /ckpt [--mode eval] [--config.x=y ...]."""

from pathlib import Path

import jax
from absl import app, flags, logging

from rsa_jax.errors import in_one_line
from rsa_jax.flags import CONFIG, parse
from rsa_jax.logs import setup_logging
from rsa_jax.preparation.builder import PreparationError
from rsa_jax.training.loop import evaluate_checkpoint, train
from rsa_jax.training.run_log import NonFiniteLossError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints, logs and results.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train or resume training, or evaluate a checkpoint.")
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "This is one of several processes, one a host, all started by this command."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "With --multihost: host:port of the first process.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --multihost: how many there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --multihost: which one this is, from 0.")
flags.declare_key_flag("config")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Trains or evaluates, by the flags."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    setup_logging()
    if MULTIHOST.value:  # without the three flags, JAX asks the cluster (Slurm, Open MPI, Kubernetes, TPU)
        jax.distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    logging.info("JAX %s, %d devices: %s", jax.__version__, jax.device_count(), jax.devices()[0].device_kind)
    workdir = Path(WORKDIR.value or "").expanduser()
    with in_one_line(PreparationError, NonFiniteLossError):
        if MODE.value == "train":
            train(CONFIG.value, workdir)
        else:
            evaluate_checkpoint(CONFIG.value, workdir)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
