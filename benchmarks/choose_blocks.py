"""Measures which blocks suit the CPU's sums over windows best.

Prints the best value of WRITE (rsa_jax/ops/cpu/window_sums.py).

python -m benchmarks.choose_blocks [--repeats 5]
"""

import argparse
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import interleaved, report, table
from benchmarks.transform import STAGES
from rsa_jax.ops.cpu.window_sums import WRITE, choose_blocks, window_sums

KERNEL_SIZE, QUERIES = (5, 7, 7), 8
POSITIONS = 245
WRITES = (32, 64, 128, 256, 512, 1024)


def contender(x: jax.Array, weights: Sequence[jax.Array], write: float) -> Callable[[], object]:
    """A layer's sums over windows and their gradients, in the blocks chosen for the write cost `write`."""

    def loss(x: jax.Array, weights: Sequence[jax.Array]) -> jax.Array:
        blocks = (choose_blocks(x.shape, each.shape, KERNEL_SIZE, write) for each in weights)
        sums = (
            window_sums(x, each, kernel_size=KERNEL_SIZE, axes=axes) for each, axes in zip(weights, blocks, strict=True)
        )
        return sum((jnp.sum(jnp.square(y)) for y in sums), jnp.zeros(()))

    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return functools.partial(lambda *args: jax.block_until_ready(program(*args)), x, weights)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.choose_blocks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns (%(default)s)")
    args = parser.parse_args(argv)
    rng, rows, sums = np.random.default_rng(0), [], dict.fromkeys(WRITES, 0.0)
    for side, channels, layers in STAGES:
        width = channels // QUERIES

        def draw(*shape: int) -> jax.Array:
            return jnp.asarray(rng.standard_normal(shape), jnp.float32)

        # Key with H1; value with H2 and G together.
        weights = draw(POSITIONS, width, width), draw(POSITIONS, 1, 2 * width)
        x = draw(1, 8, side, side, width)
        seconds = interleaved({str(write): contender(x, weights, write) for write in WRITES}, args.repeats)
        rows.append([f"{side}² x {channels}", *seconds.values()])
        for write in WRITES:
            sums[write] += layers * seconds[str(write)]
    rows.append(["7 layers of RSANet-R50", *sums.values()])
    best = min(sums, key=lambda write: sums[write])
    title = (
        f"Sums over windows of an RSA layer, forward + gradients, seconds, float32, by the cost of a write in "
        f"multiply-adds; {best} is best, WRITE is {WRITE}"
    )
    report("choose_blocks", {title: table(["map", *map(str, WRITES)], rows)}, rows)


if __name__ == "__main__":
    main()
