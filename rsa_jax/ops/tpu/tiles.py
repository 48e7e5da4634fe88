"""Tiles: the pixels of a map that a kernel computes at a time, in the frame of each lane."""

import dataclasses
import math
from collections.abc import Iterator

from rsa_jax.ops.windows import KernelSize

# A register: rows, and what each of them holds. A matrix unit takes matrices of LANES x LANES.
SUBLANES, LANES = 8, 128
MATRIX_UNITS = 4
# Bytes on a chip beside its memory. v5e and v6e have 128 MiB; the compiler wants some of it.
VMEM = 100 * 2**20


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

    Frames of whole clips lie on the lanes. The windows of a tile are a matrix: in each row of the map, in each frame of
    a window, there is an entry for each column.

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
    def columns(self) -> int:
        """Columns of the map that its windows meet, in whole registers."""
        packed = SUBLANES * max(1, 4 // self.problem.itemsize)
        return round_up(self.width + self.problem.kernel_size[2] - 1, packed)

    @property
    def rows(self) -> int:
        """Rows of the map that its windows meet, in whole tiles."""
        return round_up(self.height + self.problem.kernel_size[1] - 1, self.height)

    @property
    def flushes(self) -> int:
        """Tiles below one whose windows meet the same rows."""
        return self.rows // self.height - 1

    @property
    def entries(self) -> int:
        """Entries of its windows."""
        return self.rows * self.problem.kernel_size[0] * self.columns

    def vmem(self) -> int:
        """Bytes that the gradients' kernel holds on the chip; the transform's needs less."""
        problem, lanes = self.problem, LANES
        parts = 1 + problem.relation  # value, and key
        wide, itemsize = max(4, problem.itemsize), problem.itemsize
        per_query = self.pixels * problem.queries * problem.channels * lanes
        per_latent = self.pixels * problem.queries * problem.latent * lanes
        codes, sums = self.pixels * problem.latent, self.pixels * problem.sums
        window = problem.channels * self.columns * lanes
        moved = 2 * itemsize * (3 * per_query + parts * window * (self.rows + self.height))
        kept = wide * (3 * per_query + 2 * per_latent + 2 * SUBLANES * sums * lanes)
        kept += wide * parts * window * (self.rows - self.height)
        weights = round_up(sums, lanes) * round_up(self.entries, lanes)
        offsets = problem.channels * problem.channels * problem.context
        if problem.relation:
            kept += wide * problem.channels * codes * lanes
            weights += problem.channels * round_up(codes, lanes) * round_up(self.entries, lanes)
            offsets += problem.channels * problem.latent
        return moved + kept + (2 * itemsize + wide) * weights + 2 * wide * offsets * lanes

    def cycles(self) -> float:
        """A rough count of the cycles that transform and gradients take, for 128 frames; see benchmarks/tiles.py."""
        problem = self.problem
        codes, sums = self.pixels * problem.latent * problem.relation, self.pixels * problem.sums

        def passes(rows: int, inner: int, columns: int) -> int:
            # Weights have to be loaded, 128 cycles of them, whatever the number of rows.
            return max(rows, LANES) * -(-inner // LANES) * -(-columns // LANES)

        matrix = 0
        for outputs in (codes, sums):
            if outputs:
                matrix += 2 * passes(outputs, self.entries, LANES)  # the transform, and again for the gradients
                matrix += passes(self.entries, outputs, LANES) + passes(self.entries, LANES, outputs)
        registers = (8 * problem.latent + 6 * problem.channels) / SUBLANES + 20
        vector = self.pixels * problem.queries * registers
        each = problem.channels * (matrix / MATRIX_UNITS + vector) + 3000
        return self.across * (self.down + 0.2 * self.flushes) * each


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is not below the number."""
    return -(-number // multiple) * multiple


def choose_tile(problem: Problem) -> Tile | None:
    """The tile that costs least; None if not even one pixel's windows and weights fit on the chip."""
    fitting = [tile for tile in _candidates(problem) if tile.vmem() <= VMEM]
    return min(fitting, key=Tile.cycles, default=None)


def _candidates(problem: Problem) -> Iterator[Tile]:
    for height in (1, 2, 4):
        for across in range(1, problem.width + 1):
            width = math.ceil(problem.width / across)
            if height <= problem.height and math.ceil(problem.width / width) == across:
                yield Tile(height, width, problem)
