"""Measures which form of the transform is fastest for which map, and which blocks the banded form ought to have.

Prints what form="auto" (rsa_jax/transforms/forms.py) and WRITE (windows.py) ought to be.

python -m benchmarks.choose_form [--repeats 5] [--limit 20]
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.measure import interleaved, report, table
from benchmarks.transform import STAGES, jax_contenders
from rsa_jax.transforms import windows
from rsa_jax.transforms.forms import AUTO, FORMS

# Batch, frames, side of the map, channels: the stages of RSANet-R50, larger batches, long clips, the demonstration's
# network, and the smallest maps.
SHAPES = (
    *((1, 8, side, channels) for side, channels in ((56, 64), (28, 128), (14, 256), (7, 512))),
    *((1, 16, side, channels) for side, channels in ((28, 128), (7, 512))),
    *((4, 8, side, channels) for side, channels in ((14, 256), (7, 512))),
    (16, 8, 8, 16),
    (16, 8, 4, 32),
    (1, 32, 8, 64),
    (1, 1, 7, 64),
    (1, 2, 2, 64),
)
LAYER = "One RSA layer of 8 queries, window 5 x 7 x 7, forward + gradients, seconds, float32"
WRITES = (32, 64, 128, 256, 512, 1024)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.choose_form", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns (%(default)s)")
    parser.add_argument(
        "--limit", type=float, default=20, help="leave out a form that takes so many times as long (%(default)s)"
    )
    args = parser.parse_args(argv)
    rows, results = [], []
    for batch, frames, side, channels in SHAPES:
        x = np.random.default_rng(0).standard_normal((batch, frames, side, side, channels)).astype(np.float32)
        steps = {form: jax_contenders(form, x)[1] for form in FORMS}
        once = {}
        for form, step in steps.items():
            step()
            start = time.perf_counter()
            step()
            once[form] = time.perf_counter() - start
        close = {form: steps[form] for form in FORMS if once[form] < args.limit * min(once.values())}
        seconds = once | interleaved(close, args.repeats)
        fastest = min(seconds, key=lambda form: seconds[form])
        results.append({"shape": x.shape, "seconds": seconds, "fastest": fastest})
        rows.append([" x ".join(map(str, x.shape)), *seconds.values(), fastest])
        print(results[-1], flush=True)
    blocks, best = measure_blocks(args.repeats)
    forms_title = f'{LAYER}; form="auto" is "{AUTO}"'
    blocks_title = f"{LAYER}, banded, by the cost of a write in multiply-adds; {best} is best, WRITE is {windows.WRITE}"
    tables = {
        forms_title: table(["map", *FORMS, "fastest"], rows),
        blocks_title: table(["map", *map(str, WRITES)], blocks),
    }
    report("choose_form", tables, {"forms": results, "blocks": blocks})


def measure_blocks(repeats: int) -> tuple[list[list[object]], int]:
    """Seconds of each stage with the blocks that each cost of a write chooses; and the cost that is best for all."""
    rows: list[list[object]] = []
    sums, used = dict.fromkeys(WRITES, 0.0), windows.WRITE
    for side, channels, layers in STAGES:
        x = np.random.default_rng(0).standard_normal((1, 8, side, side, channels)).astype(np.float32)
        steps = {}
        for write in WRITES:
            windows.WRITE = write
            steps[str(write)] = jax_contenders("banded", x)[1]
            steps[str(write)]()  # compiles with these blocks
        seconds = interleaved(steps, repeats)
        rows.append([f"{side}² x {channels}", *seconds.values()])
        for write in WRITES:
            sums[write] += layers * seconds[str(write)]
    windows.WRITE = used
    rows.append(["7 layers of RSANet-R50", *sums.values()])
    return rows, min(sums, key=lambda write: sums[write])


if __name__ == "__main__":
    main()
