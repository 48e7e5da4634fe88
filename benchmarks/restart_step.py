"""Measures how far the published restart step moves the parameters, compared with the rest of each epoch.

python -m benchmarks.restart_step [--epochs 8] [--data_dir DIR]

Trains the network of configs/motion.py with the published optimizer, schedule (one epoch of warm-up) and restart step.
A distance is the Euclidean norm of the change of all parameters.
"""

import argparse

import jax
import optax

from benchmarks.measure import report, table
from configs import motion
from rsa_jax.settings import optimizer_config
from rsa_jax.training.loop import make_run
from rsa_jax.training.mesh import to_devices
from rsa_jax.training.state import PyTree


def measure(epochs: int, data_dir: str) -> list[tuple[float, float, float]]:
    """Scheduled rate, and distances of the restart step and of the rest of the epoch, for each epoch but the first."""
    config = motion.get_config()
    config.data.data_dir, config.epochs = data_dir, epochs
    config.optimizer = optimizer_config()
    config.optimizer.update(restart_step=True, warmup_epochs=1)
    run = make_run(config)
    state = run.init()
    batches = run.batches(0)
    rows = []
    for epoch in range(epochs):
        restart = 0.0
        if epoch > 0:
            state, norm = run.restart(state)
            restart = float(norm)
        start = jax.device_get(state.params)
        for _ in range(run.steps_per_epoch):
            state, metrics = run.train_step(state, to_devices(run.mesh, next(batches)))
        if epoch > 0:
            rows.append((float(metrics["learning_rate"]), restart, distance(start, state.params)))
    return rows


def distance(a: PyTree, b: PyTree) -> float:
    """Euclidean distance between two sets of parameters."""
    return float(optax.tree.norm(optax.tree.sub(a, b)))


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser("benchmarks.restart_step", description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--data_dir", default="~/tensorflow_datasets", help="where the data set motion lies")
    args = parser.parse_args()
    rows = [
        (epoch, rate, restart, rest, restart / (restart + rest))
        for epoch, (rate, restart, rest) in enumerate(measure(args.epochs, args.data_dir), 2)
    ]
    header = ["epoch", "scheduled rate", "restart step", "rest of the epoch", "fraction of the restart step"]
    report("restart_step", {"Distances that the parameters move": table(header, rows)}, rows)


if __name__ == "__main__":
    main()
