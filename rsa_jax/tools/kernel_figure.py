"""The paper's figure: a clip, a query in it, and the kernels that a layer makes for the query."""

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

from rsa_jax.tools.pictures import plt

# In inches: widths of the captions of rows, of all that stands beside them, and of the colour bar; a line; spaces.
NAMES, WIDTH, BAR, LINE, GAP = 0.95, 9.6, 0.75, 0.22, 0.08
LARGEST_FRAME, LARGEST_SLICE, SMALLEST_ROW = 1.2, 0.45, 0.44
# The most queries that are drawn.
QUERIES = 6
# The most letters of a title.
LETTERS = 165
COLOURS = "RdBu_r"


class Panel(NamedTuple):
    """A clip and the kernels of one query position.

    Attributes:
        frames: what the network sees.
        map_size: frames, height and width of the layer's input.
        position: of the query in it.
        kernel_size: of the window around the query; None: the whole map.
        kernels: of each query, by name; as large as the window.
    """

    frames: UInt8[np.ndarray, "T S S 3"]
    map_size: tuple[int, int, int]
    position: tuple[int, int, int]
    kernel_size: tuple[int, int, int] | None
    kernels: dict[str, Float[np.ndarray, "L t h w"]]

    @property
    def window(self) -> tuple[tuple[int, int], ...]:
        """First and last position, along each axis; it may reach out of the map."""
        if self.kernel_size is None:
            return tuple((0, size - 1) for size in self.map_size)
        return tuple((p - size // 2, p + size // 2) for p, size in zip(self.position, self.kernel_size, strict=True))

    def inside(self) -> Bool[np.ndarray, "t h w"]:
        """Which positions of the window lie in the map."""
        axes = [np.arange(first, last + 1) for first, last in self.window]
        frames, rows, columns = ((axis >= 0) & (axis < n) for axis, n in zip(axes, self.map_size, strict=True))
        return frames[:, None, None] & rows[:, None] & columns

    def largest(self, name: str) -> float:
        """Absolute value of a kernel in the clip, of the queries that are drawn."""
        return float(np.abs(self.kernels[name][:QUERIES] * self.inside()).max())


def draw_kernels(titles: Sequence[str], panels: Sequence[Panel], out: Path) -> None:
    """Draws panels below each other, all kernels in the colours of one scale around 0.

    A panel has a row of frames, in which the query is red and its window yellow, and a row for each kind of kernel:
    the slices over time of each query's. What lies outside of the clip, where there is nothing to see, is pale. Below
    a kernel's name is its largest absolute value, and from the second panel on its similarity to that of the first,
    at the places of the window that lie in the clip in both. What the clip does not reach counts in neither.

    Args:
        titles: of the panels.
        panels: with kernels of the same names and shapes.
        out: picture to write; the extension says the format.
    """
    queries, slices, rows, columns = next(iter(panels[0].kernels.values()))[:QUERIES].shape
    frame = min(LARGEST_FRAME, WIDTH / len(panels[0].frames) - GAP)
    group = min(LARGEST_SLICE * slices, WIDTH / queries - GAP)
    height = group / slices * rows / columns
    row = max(height + GAP, SMALLEST_ROW)
    panel_height = 3 * LINE + frame + len(panels[0].kernels) * row
    figure = plt.figure(figsize=(NAMES + WIDTH + BAR, GAP + panel_height * len(panels)))
    scale = max(panel.largest(name) for panel in panels for name in panel.kernels) or 1.0
    top = GAP
    for title, panel in zip(titles, panels, strict=True):
        _write(figure, GAP, top, title[:LETTERS], weight="bold")
        _draw_frames(figure, panel, top + LINE, frame)
        top += LINE + frame + GAP
        for query in range(queries):
            _write(figure, NAMES + query * (group + GAP), top, f"query {query}", color="0.35")
        top += LINE
        for name, kernels in panel.kernels.items():
            _write(figure, GAP, top, _caption(name, panel, panels[0]))
            for query in range(queries):
                axes = _axes(figure, NAMES + query * (group + GAP), top, group, height)
                _draw_slices(axes, kernels[query], panel.inside(), scale)
            top += row
        top += LINE - GAP
    colours = ScalarMappable(Normalize(-scale, scale), COLOURS)
    bar = figure.colorbar(colours, _axes(figure, NAMES + WIDTH + GAP, GAP + LINE, 0.12, panel_height - 2 * LINE))
    bar.ax.tick_params(labelsize=7)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def _caption(name: str, panel: Panel, first: Panel) -> str:
    caption = f"{name}\nmax |κ| {panel.largest(name):.2g}"
    return caption if panel is first else f"{caption}\ncosine {similarity(name, panel, first):.2f}"


def similarity(name: str, a: Panel, b: Panel) -> float:
    """Cosine of the angle between the kernels of all queries, where the window lies in both clips; 0 if one is 0."""
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
    """Draws a line around some rows and columns of the map, from first to last, as far as they are in it."""
    rows, columns = (
        (max(first, 0), min(last + 1, size)) for (first, last), size in zip(cells, map_size[1:], strict=True)
    )
    corner, width, height = (columns[0], rows[0]), columns[1] - columns[0], rows[1] - rows[0]
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=1.5, clip_on=False))


def _draw_slices(
    axes: Axes, kernel: Float[np.ndarray, "t h w"], inside: Bool[np.ndarray, "t h w"], scale: float
) -> None:
    """Side by side, with lines between."""
    flat, alpha = np.concatenate(list(kernel), axis=1), np.concatenate(list(np.where(inside, 1, 0.25)), axis=1)
    axes.imshow(flat, cmap=COLOURS, vmin=-scale, vmax=scale, alpha=alpha, aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.35", linewidth=0.6)
    for number in range(1, len(kernel)):
        axes.axvline(number * kernel.shape[2] - 0.5, color="0.35", linewidth=0.6)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, counted from the upper left."""
    whole = figure.get_size_inches()
    return figure.add_axes((left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1]))


def _write(figure: Figure, left: float, top: float, text: str, **style: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, text, {"fontsize": 7.5, "va": "top"} | style, parse_math=False)
