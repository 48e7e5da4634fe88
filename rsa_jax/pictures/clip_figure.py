"""Figures of clips: rows of frames under titles, and animations beside bars."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from rsa_jax.pictures.fonts import families

# In inches: height of a frame, gap between frames, space above a title, height of a title line.
FRAME, GAP, ABOVE, LINE = 1.1, 0.05, 0.12, 0.15
# Font size in points, and the width of its monospace letters in inches.
FONT_SIZE, LETTER = 8, 0.067

# Animations: height of the frames and width of the bars in pixels, and milliseconds per frame.
HEIGHT, BARS_WIDTH, DURATION = 240, 360, 250


class Row(NamedTuple):
    """Frames side by side, each `H W 3` of its own size, under a title in a matplotlib colour."""

    title: str
    colour: str
    frames: Sequence[UInt8[np.ndarray, "H W 3"]]


def check_picture(path: Path, *formats: str) -> None:
    """Check the path of a figure before anything is computed for it.

    Args:
        path: image file to write.
        formats: allowed formats, as extensions; none: all that matplotlib writes.

    Raises:
        ValueError: If the folder does not exist, the path is itself a folder, or the extension is not allowed.
    """
    formats = formats or tuple(sorted(FigureCanvasAgg.get_supported_filetypes()))
    if path.suffix.lower().lstrip(".") not in formats:
        raise ValueError(f"{path}: expected a picture's name that ends with .{', .'.join(formats)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: " + ("is a folder" if path.is_dir() else "its folder does not exist"))


def draw_rows(rows: Sequence[Row], out: Path) -> None:
    """Draw rows of frames of equal height. A title that is wider than the widest row is wrapped.

    Args:
        rows: rows from top to bottom.
        out: image file to write; the extension determines the format.
    """
    widths = [[FRAME * frame.shape[1] / frame.shape[0] for frame in row.frames] for row in rows]
    width = max(sum(row) + GAP * (len(row) - 1) for row in widths)
    titles = [textwrap.wrap(row.title, int(width / LETTER)) for row in rows]
    heights = [ABOVE + LINE * len(title) + FRAME for title in titles]
    size = np.array([width + 2 * GAP, sum(heights) + GAP])
    figure = Figure(figsize=tuple(size))
    bottom = size[1]
    for row, row_widths, title, height in zip(rows, widths, titles, heights, strict=True):
        (x, y), left, bottom = (GAP, bottom - ABOVE) / size, GAP, bottom - height
        style = {"fontsize": FONT_SIZE, "family": families("monospace"), "color": row.colour, "va": "top"}
        figure.text(x, y, "\n".join(title), style, parse_math=False)
        for frame, frame_width in zip(row.frames, row_widths, strict=True):
            axes = figure.add_axes((*(left, bottom) / size, *(frame_width, FRAME) / size))
            axes.imshow(frame, aspect="auto")
            axes.set_axis_off()
            left += frame_width + GAP
    figure.savefig(out, dpi=150)


def annotate(
    frames: UInt8[np.ndarray, "T H W 3"], title: str, shares: Sequence[tuple[str, float]]
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Frames scaled to a height of `HEIGHT` pixels, each beside bars.

    Args:
        frames: frames of one clip.
        title: text above the bars.
        shares: names and values of the bars, from 0 to 1, from top to bottom.
    """
    bars = _draw_bars(title, shares)
    width = round(HEIGHT * frames.shape[2] / frames.shape[1])
    scaled = (np.asarray(Image.fromarray(frame).resize((width, HEIGHT), Image.Resampling.BILINEAR)) for frame in frames)
    return [np.concatenate([frame, bars], axis=1) for frame in scaled]


def _draw_bars(title: str, shares: Sequence[tuple[str, float]]) -> UInt8[np.ndarray, "h w 3"]:
    figure = Figure(figsize=(BARS_WIDTH / 100, HEIGHT / 100), dpi=100)
    title = textwrap.fill(title, 48, max_lines=3, placeholder="...")
    figure.text(0.04, 0.97, title, fontsize=7, family=families("sans-serif"), va="top", parse_math=False)
    axes = figure.add_axes((0.04, 0.02, 0.92, 0.8))
    axes.set(xlim=(0, 1), ylim=(len(shares) - 0.5, -0.5))
    axes.set_axis_off()
    axes.barh(range(len(shares)), [share for _, share in shares], color="#9ec5f4")
    for row, (name, share) in enumerate(shares):
        label = f"{share:.1%}  {textwrap.shorten(name, 52, placeholder='...')}"
        axes.text(0.01, row, label, fontsize=8, family=families("sans-serif"), va="center", parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_animation(images: Sequence[UInt8[np.ndarray, "h w 3"]], out: Path) -> None:
    """Write images of equal size as a looping animation.

    Args:
        images: at least one image.
        out: .gif file to write.
    """
    first, *rest = (Image.fromarray(image) for image in images)
    first.save(out, save_all=True, append_images=rest, duration=DURATION, loop=0)
