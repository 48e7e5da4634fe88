"""The report page: results of an evaluation, rendered with a template.

The templates escape all values: names of classes and videos are untrusted.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from etils import epath
from jaxtyping import Int, UInt8

from rsa_jax.evaluation.report import charts
from rsa_jax.evaluation.report.images import matrix_image, strip
from rsa_jax.evaluation.report.statistics import (
    Estimate,
    bootstrap_class_mean,
    class_results,
    confused_pairs,
    confusion_matrix,
    predictions,
    wilson,
)
from rsa_jax.evaluation.scores import Scores, all_class_names
from rsa_jax.files import complete

# Maximum numbers: pairs with an example, classes listed at once, classes of a matrix that is written as a table,
# cells of a larger matrix that can be queried, and entries printed of a list.
PAIRS, CLASSES, TABLE, CELLS, LISTED = 10, 20, 12, 30_000, 5

# Reads the stored frames of the videos at the given indices of the split.
ReadClips = Callable[[Sequence[int]], UInt8[np.ndarray, "N T H W 3"]]


def write_report(
    path: epath.Path,
    scores: Scores,
    *,
    provenance: Mapping[str, Any],
    config: Mapping[str, Any],
    metrics_path: epath.Path,
    read_clips: ReadClips,
) -> None:
    """Writes one self-contained HTML file, which needs no internet connection.

    Args:
        path: file to write.
        scores: scores of the split.
        provenance: provenance of the data set.
        config: nested configuration of the run.
        metrics_path: metrics.jsonl of the run; it may be missing.
        read_clips: reads the frames of the examples.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = _content(scores, read_clips) | {
        "provenance": list(flatten(provenance)),
        "config": list(flatten(config)),
        "charts": charts.make_charts(charts.read_records(metrics_path)),
        "size": charts.SIZE,
    }
    with complete(path) as partial:
        page = environment.get_template("report.html.jinja").render(content)
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))


def _content(scores: Scores, read_clips: ReadClips) -> dict[str, Any]:
    """Template variables computed from the scores."""
    classes = scores.log_probabilities.shape[1]
    videos = np.bincount(scores.label, minlength=classes)
    names = all_class_names(scores.class_names, classes)
    predicted, loss = predictions(scores), scores.metrics()["loss"]
    matrix = confusion_matrix(scores.label, predicted, classes)
    pairs = confused_pairs(scores, predicted, matrix, PAIRS)
    examples: Sequence[np.ndarray] = list(read_clips([pair.example for pair in pairs])) if pairs else []
    probabilities = [float(np.exp(scores.log_probabilities[pair.example, pair.predicted])) for pair in pairs]
    return {
        "origin": scores.origin,
        "videos": len(scores.label),
        "loss": loss if math.isfinite(loss) else None,
        "accuracies": accuracies(scores),
        "undecided": int(np.sum(predicted < 0)),
        "names": names,
        "empty": [names[c] for c in np.flatnonzero(videos == 0)],
        "classes": class_results(scores.label, matrix),
        "listed": CLASSES,
        "matrix": matrix.tolist() if classes <= TABLE else None,
        "matrix_image": matrix_image(matrix),
        "axis": class_ticks(classes),
        "cells": {"names": names, "videos": videos.tolist(), **largest_cells(matrix)},
        "pairs": [
            {"pair": pair, "id": scores.ids[pair.example], "probability": 100 * probability, "strip": strip(frames)}
            for pair, probability, frames in zip(pairs, probabilities, examples, strict=True)
        ],
    }


def accuracies(scores: Scores) -> dict[str, Estimate]:
    """Accuracies over the whole split, by name."""
    rank, count = scores.ranks(), len(scores.label)
    videos = np.bincount(scores.label)
    there, right = videos > 0, np.bincount(scores.label, weights=rank < 1)
    return {
        "top-1": wilson(int(np.sum(rank < 1)), count),
        "top-5": wilson(int(np.sum(rank < 5)), count),
        "class mean": bootstrap_class_mean(right[there].astype(int), videos[there]),
    }


def class_ticks(classes: int) -> list[tuple[float, int]]:
    """Positions of some classes along the matrix, in percent, and their numbers."""
    numbers = [int(c) for c in charts.ticks(0, classes - 1, most=9) if c < classes and c.is_integer()]
    return [(100 * (number + 0.5) / classes, number) for number in numbers]


def largest_cells(matrix: Int[np.ndarray, "K K"], most: int = CELLS) -> dict[str, Any]:
    """Row, column and count of the `most` largest nonzero cells, and the largest count that is left out."""
    rows, columns = np.nonzero(matrix)
    counts = matrix[rows, columns]
    order = np.argsort(-counts, kind="stable")
    left_out = int(counts[order[most]]) if len(order) > most else 0
    cells = np.stack([rows, columns, counts], axis=1)[np.sort(order[:most])]
    return {"cells": cells.tolist(), "left_out": left_out}


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names, and values as text."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, readable(value)


def readable(value: Any) -> str:
    """A value as text; only the first entries of a list, which may hold thousands of clips."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {readable(it)}" for name, it in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        nested = any(isinstance(it, Mapping | Sequence) and not isinstance(it, str) for it in value)
        text = ("; " if nested else ", ").join(map(readable, value[:LISTED]))
        return f"{text} … {len(value)} in all" if len(value) > LISTED else text
    return str(value)
