"""Tiles: the pixels of a map that a kernel computes at a time, in the frame of each lane."""

import dataclasses
import math
from collections.abc import Iterator

from rsa_jax.ops.windows import KernelSize

# A register: rows, and what each of them holds. A matrix unit takes matrices of LANES x LANES.
SUBLANES, LANES = 8, 128
MATRIX_UNITS, VECTOR_UNITS = 4, 4
# Bytes of a chip's own memory that a kernel may take. v5p and 7x have 64 MiB, v5e and v6e 128.
VMEM = 60 * 2**20


@dataclasses.dataclass(frozen=True)
class Problem:
    """The sizes that a tile has to suit.

    Attributes:
        frames: of a clip.
        height, width: of the map.
        kernel_size: of the window.
        queries: L.
        channels: c of a query, rounded up to whole registers.
        latent: D, likewise.
        relation: whether the kernel has a relational part.
        context: whether the context has one.
        itemsize: bytes of a number in the arrays.
    """

    frames: int
    height: int
    width: int
    kernel_size: KernelSize
    queries: int
    channels: int
    latent: int
    relation: bool
    context: bool
    itemsize: int

    @property
    def sums(self) -> int:
        """Sums over windows of the value, of each pixel and channel."""
        return self.latent + self.channels * self.context


@dataclasses.dataclass(frozen=True)
class Tile:
    """A block of pixels, with the rows of the map that its windows meet.

    Frames of whole clips lie on the lanes. The windows of a tile are a matrix: of each row of the map (or two, see
    `stacked`), of each frame of a window, there is an entry for each column.

    Attributes:
        height, width: in pixels.
        problem: that it is for.
    """

    height: int
    width: int
    problem: Problem

    @property
    def pixels(self) -> int:
        """Pixels of a tile."""
        return self.height * self.width

    @property
    def down(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.problem.height // self.height)

    @property
    def across(self) -> int:
        """Tiles from left to right."""
        return -(-self.problem.width // self.width)

    @property
    def stacked(self) -> int:
        """Rows of the map that share a register: two, where numbers are packed in pairs and rows come in pairs."""
        return 2 if self.problem.itemsize == 2 and self.height % 2 == 0 else 1

    @property
    def columns(self) -> int:
        """Columns of the map that its windows meet, in whole registers."""
        packed = SUBLANES * max(1, 4 // self.problem.itemsize)
        return round_up(self.width + self.problem.kernel_size[2] - 1, packed // self.stacked)

    @property
    def rows(self) -> int:
        """Rows of the map that its windows meet."""
        return self.height + self.problem.kernel_size[1] - 1

    @property
    def all_rows(self) -> int:
        """Rows that the windows of all tiles meet, of the map and around it."""
        return (self.down - 1) * self.height + self.rows

    @property
    def entries(self) -> int:
        """Entries of its windows."""
        return self.rows * self.problem.kernel_size[0] * self.columns

    def vmem(self) -> int:
        """Bytes that the gradients' kernel holds on the chip; the transform's needs less."""
        problem, itemsize = self.problem, self.problem.itemsize
        wide = max(4, itemsize)
        parts = 1 + problem.relation  # value, and key
        per_query = self.pixels * problem.queries * problem.channels
        per_latent = self.pixels * problem.queries * problem.latent
        codes, sums = self.pixels * problem.latent, self.pixels * problem.sums
        # What changes with every step lies there twice.
        moved = 2 * 3 * itemsize * per_query
        moved += parts * (itemsize + wide) * problem.channels * self.all_rows * self.columns
        kept = 4 * per_query + 2 * per_latent + 2 * SUBLANES * max(codes, sums)
        offsets = problem.channels * problem.channels * problem.context
        weights = round_up(sums, LANES) * round_up(self.entries, LANES)
        if problem.relation:
            kept += problem.channels * codes
            offsets += problem.channels * problem.latent
            weights += problem.channels * round_up(codes, LANES) * round_up(self.entries, LANES)
        return LANES * (moved + wide * (kept + 2 * offsets)) + (2 * itemsize + wide) * weights

    def cycles(self, *, gradients: bool) -> float:
        """About the cycles that one of the two kernels takes for 128 frames, on a v5e.

        Fitted to the bundles of kernels that the compiler wrote: benchmarks/tiles.py.
        """
        problem = self.problem
        codes, sums = self.pixels * problem.latent * problem.relation, self.pixels * problem.sums
        # Products of matrices, in passes of rows through the units, and what loading a matrix takes beyond them.
        passes, loads = 0, 0
        for outputs in filter(None, (codes, sums)):
            inner = -(-self.entries // LANES)
            passes += inner * outputs
            loads += inner * max(0, LANES - outputs)
            if gradients:
                passes += self.entries * 2 * -(-outputs // LANES)
        latent, channels = problem.latent / SUBLANES, problem.channels / SUBLANES
        # Of each query and channel: products of registers, added up, and sums over a register's rows.
        products = 2 * latent * problem.relation + 2 * latent + 2 * channels * problem.context
        reductions = 1
        if gradients:
            products += 4 * latent + 2 * channels * problem.context + 4 * latent * problem.relation
            reductions += problem.relation + problem.context
        vector = self.pixels * problem.queries * (1.2 / VECTOR_UNITS * products + 2 * reductions)
        each = passes / MATRIX_UNITS + 1.7 * loads / MATRIX_UNITS + vector
        return self.across * self.down * problem.channels * each


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is not below the number."""
    return -(-number // multiple) * multiple


def choose_tile(problem: Problem) -> Tile | None:
    """The tile that costs least; None if not even one pixel's windows and weights fit on the chip."""
    fitting = [tile for tile in _candidates(problem) if tile.vmem() <= VMEM]
    return min(fitting, key=lambda tile: tile.cycles(gradients=False) + tile.cycles(gradients=True), default=None)


def _candidates(problem: Problem) -> Iterator[Tile]:
    for height in (1, 2, 4):
        for across in range(1, problem.width + 1):
            width = math.ceil(problem.width / across)
            if height <= problem.height and math.ceil(problem.width / width) == across:
                yield Tile(height, width, problem)
