"""Plot of a study: the accuracy of its variants."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rsa_jax.files import complete
from rsa_jax.studies.results import Outcome


def draw_study(outcomes: Sequence[Outcome], out: Path) -> None:
    """Plot the top-1 of every variant: at the end, with mean and deviation, and during the runs, one line per seed."""
    figure = Figure(figsize=(11, max(3, 0.8 + 0.32 * len(outcomes))), layout="constrained")
    ends, runs = figure.subplots(1, 2, width_ratios=(4, 3))
    for row, outcome in enumerate(outcomes):
        color = f"C{row % 10}"
        _draw_end(ends, row, outcome, color)
        for curve in outcome.curves:
            runs.plot([step for step, _ in curve], [top1 for _, top1 in curve], color, linewidth=1, alpha=0.7)
    ends.set_yticks(range(len(outcomes)), [outcome.variant for outcome in outcomes])
    ends.set_ylim(len(outcomes) - 0.5, -0.5)
    ends.set_xlim(0, 100)
    ends.set_xlabel("validation top-1 at the end, %")
    ends.grid(axis="x", alpha=0.3)
    runs.set_xlim(left=0)
    runs.set_ylim(0, 100)
    runs.set_xlabel("step")
    runs.set_ylabel("validation top-1, %")
    runs.grid(alpha=0.3)
    for axes in (ends, runs):
        axes.spines[["top", "right"]].set_visible(False)
    with complete(out) as partial:
        figure.savefig(partial, dpi=150, format="png")


def _draw_end(axes: Axes, row: int, outcome: Outcome, color: str) -> None:
    """Draw a dot per seed, a line and a label at the mean, and a bar of one deviation to either side."""
    labels = []
    if outcome.mean is not None:
        spread = outcome.deviation or 0.0
        axes.barh(row, 2 * spread, 0.5, outcome.mean - spread, color=color, alpha=0.2)
        axes.vlines(outcome.mean, row - 0.3, row + 0.3, color=color)
        labels.append(f"{outcome.mean:.1f}")
    failed = Counter(value for value in outcome.top1 if isinstance(value, str))
    labels += [f"{count} {reason}" for reason, count in failed.items()]
    axes.scatter(outcome.reached, [row] * len(outcome.reached), 16, color, alpha=0.6, clip_on=False)
    axes.annotate(", ".join(labels), (102, row), annotation_clip=False, va="center", fontsize=8)
