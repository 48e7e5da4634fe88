"""Train a network, resume training, or evaluate a checkpoint.

python -m rsa_jax train --config configs/ssv2.py --workdir DIR [--mode eval] [--config.x=y ...]

The same command resumes an interrupted training. main.py is the same program. With --multihost, the same command runs
on every host; without the three flags behind it, JAX asks the cluster (Slurm, Open MPI, Kubernetes, TPU).
"""

import argparse
from collections.abc import Sequence

import jax
from absl import logging

from rsa_jax.errors import in_one_line
from rsa_jax.evaluation.evaluator import evaluate_checkpoint
from rsa_jax.flags import Parser, at_least, folder_or_url, parse_with_config
from rsa_jax.logs import setup_logging
from rsa_jax.preparation.store import PreparationError
from rsa_jax.training.loop import train
from rsa_jax.training.run_log import NonFiniteLossError


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("train", __doc__)
    add = parser.add_argument
    add("--workdir", type=folder_or_url, required=True, help="folder of checkpoints, logs and results")
    add("--mode", choices=("train", "eval"), default="train", help="train or resume; or evaluate (%(default)s)")
    hosts = parser.add_argument_group("several hosts")
    add = hosts.add_argument
    add("--multihost", action="store_true", help="this is one of several processes, one per host")
    add("--coordinator", metavar="HOST:PORT", help="address of the first process")
    add("--num_processes", type=at_least(1), help="number of processes")
    add("--process_id", type=at_least(0), help="number of this process, from 0")
    args = parse_with_config(parser, argv)
    for name in ("coordinator", "num_processes", "process_id"):
        if getattr(args, name) is not None and not args.multihost:
            parser.error(f"--{name}: needs --multihost")
    return args


def _join(args: argparse.Namespace) -> None:
    """Join the processes of the other hosts."""
    try:
        jax.distributed.initialize(args.coordinator, args.num_processes, args.process_id)
    except ValueError as error:
        raise SystemExit(
            f"--multihost: JAX found no cluster ({error}) Start this command under Slurm, Open MPI or Kubernetes or "
            "on a TPU, or give --coordinator, --num_processes and --process_id."
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Train or evaluate."""
    args = _parse(argv)
    setup_logging()
    if args.multihost:
        _join(args)
    logging.info("JAX %s, %d devices: %s", jax.__version__, jax.device_count(), jax.devices()[0].device_kind)
    run = train if args.mode == "train" else evaluate_checkpoint
    with in_one_line(PreparationError, NonFiniteLossError):
        run(args.config, args.workdir)


if __name__ == "__main__":
    main()
