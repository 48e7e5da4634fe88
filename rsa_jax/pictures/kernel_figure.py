"""The paper's figure: a clip, a query in it, and the kernels that layers compute for the query."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rsa_jax.pictures.fonts import families

# In inches: widths of the captions on the left, of frames and kernels, and of the colour bars; line height; gap.
NAMES, WIDTH, BAR, LINE, GAP = 1.2, 9.6, 0.85, 0.14, 0.08
LARGEST_FRAME, LARGEST_SLICE, SMALLEST_ROW = 1.2, 0.45, 3 * LINE
# Minimum distance between two queries, which leaves room for their captions.
QUERY_PITCH = 0.55
# Maximum number of queries drawn.
QUERIES = 6
# Font size in points, and the width of its monospace letters in inches: 10 pixels at 150 dpi.
FONT_SIZE, LETTER = 7.5, 0.067
COLOURS = "RdBu_r"


class Panel(NamedTuple):
    """A clip and the kernels of one query position.

    Attributes:
        frames: frames that the network sees.
        map_size: frames, height and width of the layer's input.
        position: query position in the layer's input.
        kernel_size: size of the window around the query; None: the whole feature map.
        kernels: kernels of all queries, by name; as large as the window.
        network: name of the network; empty where a figure has only one.
    """

    frames: UInt8[np.ndarray, "T S S 3"]
    map_size: tuple[int, int, int]
    position: tuple[int, int, int]
    kernel_size: tuple[int, int, int] | None
    kernels: dict[str, Float[np.ndarray, "L t h w"]]
    network: str = ""

    @property
    def window(self) -> tuple[tuple[int, int], ...]:
        """First and last position along each axis; both may lie outside the feature map."""
        if self.kernel_size is None:
            return tuple((0, size - 1) for size in self.map_size)
        return tuple((p - size // 2, p + size // 2) for p, size in zip(self.position, self.kernel_size, strict=True))

    def inside(self) -> Bool[np.ndarray, "t h w"]:
        """Mask of the window's positions that lie in the feature map."""
        axes = [np.arange(first, last + 1) for first, last in self.window]
        frames, rows, columns = ((axis >= 0) & (axis < n) for axis, n in zip(axes, self.map_size, strict=True))
        return frames[:, None, None] & rows[:, None] & columns

    def largest(self, name: str) -> float:
        """Largest absolute value of a kernel in the clip, over the drawn queries."""
        return float(np.abs(self.kernels[name][:QUERIES] * self.inside()).max())


class _Layout(NamedTuple):
    """Sizes, in inches, of the rows of one network's kernels.

    Attributes:
        queries: number of queries drawn.
        group: width of a query's slices.
        height: height of a slice.
        header: lines above the rows, with the network's name.
        rows: number of rows.
    """

    queries: int
    group: float
    height: float
    header: list[str]
    rows: int

    @property
    def row(self) -> float:
        """Height of a row and the space below it."""
        return max(self.height, SMALLEST_ROW) + GAP

    @property
    def total(self) -> float:
        """Height of the header, all rows and the space below them."""
        return LINE * len(self.header) + 1.5 * GAP + self.rows * self.row

    def left(self, query: int) -> float:
        """Left edge of a query's slices."""
        return NAMES + query * max(self.group + GAP, QUERY_PITCH)


def _layout(panel: Panel) -> _Layout:
    queries, slices, rows, columns = next(iter(panel.kernels.values()))[:QUERIES].shape
    width = min(LARGEST_SLICE * min(1, columns / rows), (WIDTH / queries - GAP) / slices)
    header = _wrap(panel.network, NAMES - 2 * GAP) or [""]
    return _Layout(queries, width * slices, width * rows / columns, header, len(panel.kernels))


def draw_kernels(
    titles: Sequence[str], panels: Sequence[Panel], out: Path, further: Sequence[Sequence[Panel]] = ()
) -> None:
    """Draw panels below each other, each row of kernels on a colour scale of its own.

    A panel has a row of frames, in which the query is red and its window yellow, and a row for each kind of kernel:
    the temporal slices of each query's kernel. Positions outside the clip are pale. All panels use the same scale for
    the same row; the colour bar at its right shows the limits. Below a kernel's name is its largest absolute value,
    and from the second panel on its cosine similarity to the first panel's kernel, at the positions of the window
    that lie in the clip in both. Positions outside the clip count in neither value.

    Args:
        titles: titles of the panels; newlines separate lines, and long lines are wrapped.
        panels: panels whose kernels have the same names and shapes.
        out: image file to write; the extension determines the format.
        further: panels of other networks for the same clips. Their kernels are drawn below the same frames.
    """
    networks = [panels, *further]
    layouts = [_layout(network[0]) for network in networks]
    width = NAMES + WIDTH + BAR
    lines = [[part for line in title.split("\n") for part in _wrap(line, width - 2 * GAP)] for title in titles]
    side = min(LARGEST_FRAME, WIDTH / len(panels[0].frames) - GAP)
    below = side + 3 * GAP + sum(layout.total for layout in layouts)
    heights = [LINE * len(title) + below for title in lines]
    figure = Figure(figsize=(width, GAP + sum(heights)))
    top = GAP
    for number, (title, height) in enumerate(zip(lines, heights, strict=True)):
        _write(figure, GAP, top, title, weight="bold")
        frames_top = top + LINE * len(title) + GAP / 2
        _draw_frames(figure, panels[number], frames_top, side)
        rows_top = frames_top + side + GAP
        for network, layout in zip(networks, layouts, strict=True):
            _draw_rows(figure, layout, network, number, rows_top)
            rows_top += layout.total
        top += height
    figure.savefig(out, dpi=150)


def _draw_rows(figure: Figure, layout: _Layout, panels: Sequence[Panel], number: int, top: float) -> None:
    """Draw the kernels of one network for one of its panels."""
    _write(figure, GAP, top, layout.header, weight="bold")
    for query in range(layout.queries):
        _write(figure, layout.left(query), top, [f"query {query}"], color="0.35")
    panel, top = panels[number], top + LINE * len(layout.header) + GAP / 2
    for name, kernels in panel.kernels.items():
        scale = max(other.largest(name) for other in panels) or 1.0
        _write(figure, GAP, top, _caption(name, panel, panels[0]))
        for query in range(layout.queries):
            axes = _axes(figure, layout.left(query), top, layout.group, layout.height)
            _draw_slices(axes, kernels[query], panel.inside(), scale)
        _draw_scale(figure, top, layout.row - GAP, scale)
        top += layout.row


def _caption(name: str, panel: Panel, first: Panel) -> list[str]:
    caption = [name, f"max |κ| {panel.largest(name):.2g}"]
    return caption if panel is first else [*caption, f"cosine {similarity(name, panel, first):.2f}"]


def similarity(name: str, a: Panel, b: Panel) -> float:
    """Cosine similarity of the kernels of all queries, where the window lies in both clips; 0 if one kernel is 0."""
    both = a.inside() & b.inside()
    kernel, other = a.kernels[name] * both, b.kernels[name] * both
    norms = np.linalg.norm(kernel) * np.linalg.norm(other)
    return float(np.sum(kernel * other) / norms) if norms else 0.0


def _draw_frames(figure: Figure, panel: Panel, top: float, side: float) -> None:
    (first, last), *window = panel.window
    query = [(place, place) for place in panel.position[1:]]
    for number, frame in enumerate(panel.frames):
        axes = _axes(figure, NAMES + number * (side + GAP), top, side, side)
        axes.imshow(frame, extent=(0, panel.map_size[2], panel.map_size[1], 0), aspect="auto")
        axes.set_axis_off()
        if first <= number <= last:
            _outline(axes, panel.map_size, window, "yellow")
        if number == panel.position[0]:
            _outline(axes, panel.map_size, query, "red")


def _outline(axes: Axes, map_size: Sequence[int], cells: Sequence[tuple[int, int]], colour: str) -> None:
    """Draw a line around rows and columns of the feature map, from first to last, clipped to its size."""
    rows, columns = (
        (max(first, 0), min(last + 1, size)) for (first, last), size in zip(cells, map_size[1:], strict=True)
    )
    corner, width, height = (columns[0], rows[0]), columns[1] - columns[0], rows[1] - rows[0]
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=1.5, clip_on=False))


def _draw_slices(
    axes: Axes, kernel: Float[np.ndarray, "t h w"], inside: Bool[np.ndarray, "t h w"], scale: float
) -> None:
    """Draw the slices side by side, with lines between them."""
    flat, alpha = np.concatenate(list(kernel), axis=1), np.concatenate(list(np.where(inside, 1, 0.25)), axis=1)
    axes.imshow(flat, cmap=COLOURS, vmin=-scale, vmax=scale, alpha=alpha, aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.35", linewidth=0.6)
    for number in range(1, len(kernel)):
        axes.axvline(number * kernel.shape[2] - 0.5, color="0.35", linewidth=0.6)


def _draw_scale(figure: Figure, top: float, height: float, scale: float) -> None:
    """Draw a row's colour bar on the right, with its limits beside its ends."""
    left, width = NAMES + WIDTH, 0.12
    bar = figure.colorbar(ScalarMappable(Normalize(-scale, scale), COLOURS), _axes(figure, left, top, width, height))
    bar.set_ticks([])
    bar.outline.set(color="0.35", linewidth=0.6)
    for sign, place in (("+", top), ("-", top + height - LINE)):
        _write(figure, left + width + GAP / 2, place, [f"{sign}{scale:.2g}"])


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a position in inches from the upper left corner."""
    whole = figure.get_size_inches()
    return figure.add_axes((left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1]))


def _wrap(text: str, width: float) -> list[str]:
    """Split text into lines for `_write` that are at most `width` inches wide."""
    return textwrap.wrap(text, int(width / LETTER))


def _write(figure: Figure, left: float, top: float, lines: Sequence[str], **style: str) -> None:
    """Write lines in a monospace font."""
    width, height = figure.get_size_inches()
    font = {"fontsize": FONT_SIZE, "family": families("monospace"), "va": "top"} | style
    for number, line in enumerate(lines):
        figure.text(left / width, 1 - (top + number * LINE) / height, line, font, parse_math=False)
