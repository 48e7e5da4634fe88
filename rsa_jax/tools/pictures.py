"""Pictures of clips: rows of frames under titles."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import UInt8

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# In inches: height of a frame, space between two and above a title, height of a line of the title.
FRAME, GAP, ABOVE, LINE = 1.1, 0.05, 0.12, 0.15
# Size of letters in points, of a font in which they are all as wide: so many inches.
FONT_SIZE, LETTER = 8, 0.067


class Row(NamedTuple):
    """Frames side by side, each `H W 3` of its own size, under a title of some colour of matplotlib."""

    title: str
    colour: str
    frames: Sequence[UInt8[np.ndarray, "H W 3"]]


def draw_rows(rows: Sequence[Row], out: Path) -> None:
    """Draws rows of frames, all as high; a title that is wider than the widest row is folded.

    Args:
        rows: from top to bottom.
        out: picture to write; the extension says the format.
    """
    widths = [[FRAME * frame.shape[1] / frame.shape[0] for frame in row.frames] for row in rows]
    width = max(sum(row) + GAP * (len(row) - 1) for row in widths)
    titles = [textwrap.wrap(row.title, int(width / LETTER)) for row in rows]
    heights = [ABOVE + LINE * len(title) + FRAME for title in titles]
    size = np.array([width + 2 * GAP, sum(heights) + GAP])
    figure = plt.figure(figsize=tuple(size))
    bottom = size[1]
    for row, row_widths, title, height in zip(rows, widths, titles, heights, strict=True):
        (x, y), left, bottom = (GAP, bottom - ABOVE) / size, GAP, bottom - height
        style = {"fontsize": FONT_SIZE, "family": "monospace", "color": row.colour, "va": "top"}
        figure.text(x, y, "\n".join(title), style, parse_math=False)
        for frame, frame_width in zip(row.frames, row_widths, strict=True):
            axes = figure.add_axes((*(left, bottom) / size, *(frame_width, FRAME) / size))
            axes.imshow(frame, aspect="auto")
            axes.set_axis_off()
            left += frame_width + GAP
    figure.savefig(out, dpi=150)
    plt.close(figure)
