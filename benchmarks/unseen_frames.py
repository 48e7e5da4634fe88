"""Counts the frames that the published sampling never shows in training, and the videos that it shows as a still.

python -m benchmarks.unseen_frames LIST ...

LIST is a list of clips in TSN's format, `path num_frames label`, such as the authors' lists in
https://github.com/KimManjin/CorrelationSideTuning, folder Recognition/lists. Prints a table; writes nothing.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.measure import table


def main() -> None:
    """Prints the mean percentage of unseen frames and the number of still videos, per list and for 8 and 16 frames."""
    rows = []
    for path in map(Path, sys.argv[1:]):
        stored = np.array([int(line.split()[-2]) for line in path.read_text().splitlines() if line.strip()])
        for num_frames in (8, 16):
            unseen = 100 * np.mean(stored % num_frames / stored)
            rows.append(
                (f"{path.parent.name}/{path.name}", len(stored), num_frames, unseen, np.sum(stored <= num_frames))
            )
    print(table(["list", "clips", "T", "unseen in training, %", "clips of at most T frames"], rows))


if __name__ == "__main__":
    main()
