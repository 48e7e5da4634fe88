"""Tiles: the pixels of a feature map that a kernel computes at a time, with one frame per lane."""

import dataclasses
import math
from collections.abc import Iterator

from rsa_jax.ops.windows import KernelSize

# Rows of a register, and numbers in each row. A matrix unit takes matrices of LANES x LANES.
SUBLANES, LANES = 8, 128
MATRIX_UNITS, VECTOR_UNITS = 4, 4
# VMEM that a kernel may take, in bytes. v5p and 7x have 64 MiB, v5e and v6e 128.
VMEM = 60 * 2**20


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a transform, which determine its tile.

    Attributes:
        frames: frames of a clip.
        height, width: size of the feature map.
        kernel_size: size of the window.
        queries: L.
        channels: c, channels of a query, rounded up to whole registers.
        latent: D, rounded up to whole registers.
        relation: whether the kernel has a relational part.
        context: whether the context has a relational part.
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
        """Number of window sums of the value, for each pixel and channel."""
        return self.latent + self.channels * self.context


@dataclasses.dataclass(frozen=True)
class Tile:
    """A block of pixels, with the rows of the feature map that its windows cover.

    Frames of whole clips lie on the lanes. The windows of a tile form a matrix: for each row of the feature map (or
    two, see `stacked`) and each frame of a window, there is an entry for each column.

    Attributes:
        height, width: size in pixels.
        sizes: sizes of the transform.
    """

    height: int
    width: int
    sizes: Sizes

    @property
    def pixels(self) -> int:
        """Number of pixels of the tile."""
        return self.height * self.width

    @property
    def down(self) -> int:
        """Number of tiles from top to bottom."""
        return -(-self.sizes.height // self.height)

    @property
    def across(self) -> int:
        """Number of tiles from left to right."""
        return -(-self.sizes.width // self.width)

    @property
    def stacked(self) -> int:
        """Number of rows that share a register: two, if numbers are packed in pairs and the height is even."""
        return 2 if self.sizes.itemsize == 2 and self.height % 2 == 0 else 1

    @property
    def columns(self) -> int:
        """Number of columns that the tile's windows cover, rounded up to whole registers."""
        packed = SUBLANES * max(1, 4 // self.sizes.itemsize)
        return round_up(self.width + self.sizes.kernel_size[2] - 1, packed // self.stacked)

    @property
    def rows(self) -> int:
        """Number of rows that the tile's windows cover."""
        return self.height + self.sizes.kernel_size[1] - 1

    @property
    def all_rows(self) -> int:
        """Number of rows that the windows of all tiles cover, including padding."""
        return (self.down - 1) * self.height + self.rows

    @property
    def entries(self) -> int:
        """Number of entries of the tile's windows."""
        return self.rows * self.sizes.kernel_size[0] * self.columns

    def vmem(self) -> int:
        """Bytes of VMEM that the backward kernel takes; the forward kernel needs less."""
        sizes, itemsize = self.sizes, self.sizes.itemsize
        wide = max(4, itemsize)
        parts = 1 + sizes.relation  # value, and key
        per_query = self.pixels * sizes.queries * sizes.channels
        per_latent = self.pixels * sizes.queries * sizes.latent
        codes, sums = self.pixels * sizes.latent, self.pixels * sizes.sums
        # Arrays that change with every step are double-buffered.
        pipelined = 2 * 3 * itemsize * per_query
        pipelined += parts * (itemsize + wide) * sizes.channels * self.all_rows * self.columns
        kept = 4 * per_query + 2 * per_latent + 2 * SUBLANES * max(codes, sums)
        offsets = sizes.channels * sizes.channels * sizes.context
        weights = round_up(sums, LANES) * round_up(self.entries, LANES)
        if sizes.relation:
            kept += sizes.channels * codes
            offsets += sizes.channels * sizes.latent
            weights += sizes.channels * round_up(codes, LANES) * round_up(self.entries, LANES)
        return LANES * (pipelined + wide * (kept + 2 * offsets)) + (2 * itemsize + wide) * weights

    def cycles(self, *, gradients: bool) -> float:
        """Estimated cycles of the forward or (`gradients`) backward kernel for 128 frames, on a v5e.

        Fitted to the compiler's bundles in bfloat16, from which it differs by up to a quarter, and by 5 % for the
        published layers (see benchmarks/tiles.py). True float32 takes three times as long.
        """
        sizes = self.sizes
        codes, sums = self.pixels * sizes.latent * sizes.relation, self.pixels * sizes.sums
        # Matrix products, in passes of rows through the units, and the extra cost of loading a matrix.
        passes, loads = 0, 0
        for outputs in filter(None, (codes, sums)):
            inner = -(-self.entries // LANES)
            passes += inner * outputs
            loads += inner * max(0, LANES - outputs)
            if gradients:
                passes += self.entries * 2 * -(-outputs // LANES)
        latent, channels = sizes.latent / SUBLANES, sizes.channels / SUBLANES
        # For each query and channel: products of registers, added up, and sums over a register's rows.
        products = 2 * latent * sizes.relation + 2 * latent + 2 * channels * sizes.context
        reductions = 1
        if gradients:
            products += 4 * latent + 2 * channels * sizes.context + 4 * latent * sizes.relation
            reductions += sizes.relation + sizes.context
        vector = self.pixels * sizes.queries * (1.2 / VECTOR_UNITS * products + 2 * reductions)
        each = passes / MATRIX_UNITS + 1.7 * loads / MATRIX_UNITS + vector
        return self.across * self.down * sizes.channels * each


def round_up(number: int, multiple: int) -> int:
    """The number, rounded up to a multiple of `multiple`."""
    return -(-number // multiple) * multiple


def choose_tile(sizes: Sizes) -> Tile | None:
    """The cheapest tile; None if not even one pixel's windows and weights fit on the chip."""
    fitting = [tile for tile in _candidates(sizes) if tile.vmem() <= VMEM]
    return min(fitting, key=lambda tile: tile.cycles(gradients=False) + tile.cycles(gradients=True), default=None)


def _candidates(sizes: Sizes) -> Iterator[Tile]:
    for height in (1, 2, 4):
        for across in range(1, sizes.width + 1):
            width = math.ceil(sizes.width / across)
            if height <= sizes.height and math.ceil(sizes.width / width) == across:
                yield Tile(height, width, sizes)
