"""Training curves as charts: converts the values of metrics.jsonl to points in pixels."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator


class Size(NamedTuple):
    """Size of a chart in pixels: the whole, and the edges of its plot area."""

    width: int = 400
    height: int = 240
    left: int = 44
    right: int = 390
    top: int = 10
    bottom: int = 216


SIZE = Size()
# Maximum number of points of a curve; in longer curves, neighbouring points are averaged.
POINTS = 240


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: name of the curve.
        points: `x,y` pairs in pixels, in SVG syntax.
        last: last value of the curve.
    """

    name: str
    points: str
    last: float


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves over the steps of a run.

    Attributes:
        title: title with the unit.
        curves: at least one curve.
        x_ticks: pixel and text of each tick of the x-axis.
        y_ticks: pixel and text of each tick of the y-axis.
    """

    title: str
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


# By title: name of each curve, its field in metrics.jsonl, and its scale factor.
CHARTS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "Loss": (("training", "loss", 1), ("validation", "validation_loss", 1)),
    "Top-1 accuracy, percent": (("training", "accuracy", 100), ("validation", "validation_top1", 1)),
    "Learning rate": (("learning rate", "learning_rate", 1),),
}


def read_records(path: epath.Path) -> list[dict[str, Any]]:
    """Records of a metrics.jsonl; none if there is no such file. Truncated lines are skipped."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def make_charts(records: Sequence[dict[str, Any]]) -> list[Chart]:
    """Charts for which the records have values."""
    charts = []
    for title, fields in CHARTS.items():
        series = {name: _series(records, field, factor) for name, field, factor in fields}
        series = {name: points for name, points in series.items() if len(points)}
        if series:
            charts.append(_chart(title, series))
    return charts


def _series(records: Sequence[dict[str, Any]], field: str, factor: float) -> Float[np.ndarray, "N 2"]:
    """Steps and values, without the non-finite ones, averaged to at most `POINTS` points."""
    pairs = [(record["step"], factor * record[field]) for record in records if record.get(field) is not None]
    points = np.array([pair for pair in pairs if math.isfinite(pair[1])], np.float64).reshape(-1, 2)
    return np.stack([part.mean(axis=0) for part in np.array_split(points, POINTS)]) if len(points) > POINTS else points


def _chart(title: str, series: dict[str, Float[np.ndarray, "N 2"]]) -> Chart:
    points = np.concatenate(list(series.values()))
    last_step = max(points[:, 0].max(), 1)
    values = ticks(min(0, points[:, 1].min()), points[:, 1].max())

    def x(step: float) -> float:
        return round(SIZE.left + step / last_step * (SIZE.right - SIZE.left), 1)

    def y(value: float) -> float:
        return round(SIZE.bottom - (value - values[0]) / (values[-1] - values[0]) * (SIZE.bottom - SIZE.top), 1)

    curves = [
        Curve(name, " ".join(f"{x(step)},{y(value)}" for step, value in points), float(points[-1, 1]))
        for name, points in series.items()
    ]
    steps = [step for step in ticks(0, last_step) if step <= last_step]
    return Chart(title, curves, [(x(it), _short(it)) for it in steps], [(y(it), f"{it:g}") for it in values])


def _short(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover `low` to `high`, `most` + 1 or somewhat fewer."""
    high = high if high > low else low + (abs(low) or 1)  # room for a constant
    values = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(f"{value:.12g}") for value in values]
