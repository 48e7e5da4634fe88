"""Average the scores of several evaluated models, such as the paper's 8- and 16-frame models, and print the metrics.

python -m rsa_jax combine WORKDIR_OR_NPZ WORKDIR_OR_NPZ ... [--weights 1 1] [--out combined.npz]
"""

# No JAX is imported, so that the tool starts at once.
import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rsa_jax.errors import in_one_line
from rsa_jax.evaluation.scores import Scores, ScoresError, average_probabilities, load_scores, save_scores
from rsa_jax.files import write_json
from rsa_jax.flags import Parser, folder_or_url


def combine(models: Sequence[Scores], paths: Sequence[Path], weights: Sequence[float]) -> Scores:
    """Scores from the weighted mean of the models' probabilities.

    Args:
        models: scores of the models.
        paths: files of the scores.
        weights: a positive weight for each model.

    Raises:
        ScoresError: If the scores are not of the same videos and classes.
    """
    for path, model in zip(paths, models, strict=True):
        for difference in _differences(models[0], model):
            raise ScoresError(f"{path} does not fit {paths[0]}: {difference}")
    first = models[0]
    origin = {
        "dataset": first.origin["dataset"],
        "split": first.origin["split"],
        "models": [
            {"path": str(path), "weight": weight, **model.metrics(), **model.origin}
            for path, weight, model in zip(paths, weights, models, strict=True)
        ],
    }
    average = average_probabilities(np.stack([model.log_probabilities for model in models]), weights)
    return Scores(average, first.label, first.ids, first.class_names, origin)


def _differences(there: Scores, here: Scores) -> Iterator[str]:
    """Reasons why two models' scores cannot be averaged."""
    for name in ("dataset", "split"):
        if there.origin[name] != here.origin[name]:
            yield f"its {name} is {here.origin[name]!r}, not {there.origin[name]!r}"
    classes, expected = here.log_probabilities.shape[1], there.log_probabilities.shape[1]
    if classes != expected:
        yield f"it has {classes} classes, not {expected}"
    if len(here.ids) != len(there.ids):
        yield f"it has {len(here.ids)} videos, not {len(there.ids)}"
    columns = {
        "class": (here.class_names, there.class_names),
        "video": (here.ids, there.ids),
        "label of video": (here.label.tolist(), there.label.tolist()),
    }
    for what, (values, others) in columns.items():
        for row, (value, other) in enumerate(zip(values, others, strict=False)):
            if value != other:
                yield f"its {what} {row} is {value!r}, not {other!r}"


def metrics_table(rows: dict[str, dict[str, float]]) -> str:
    """Metrics as a text table, one line per name."""
    width = max(map(len, rows))
    header = "".join(f"{name:>14}" for name in next(iter(rows.values())))
    lines = [" " * width + header]
    for name, row in rows.items():
        values = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append(f"{name:{width}}" + "".join(f"{value:>14}" for value in values))
    return "\n".join(lines)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("combine", __doc__)
    add = parser.add_argument
    add("models", type=folder_or_url, nargs="+", help="workdirs that were evaluated, or files of scores")
    add("--weights", type=float, nargs="+", help="weight of each model (1)")
    add("--out", type=folder_or_url, help="file for the combined scores, .npz; the metrics go beside it, as .json")
    args = parser.parse_args(argv)
    args.weights = args.weights or [1.0] * len(args.models)
    args.paths = [path / "scores.npz" if path.is_dir() else path for path in args.models]
    if len(args.paths) < 2:
        parser.error("expected at least two models")
    if len(args.weights) != len(args.paths) or not all(0 < weight < math.inf for weight in args.weights):
        parser.error(f"--weights: expected {len(args.paths)} positive numbers, got {args.weights}")
    if args.out and args.out.suffix != ".npz":
        parser.error(f"--out: expected a name that ends in .npz, got {args.out}")
    if args.out and args.out.resolve() in [path.resolve() for path in args.paths]:
        parser.error(f"--out: {args.out} is one of the models")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Print the metrics of each model and of their average, and write the scores and metrics of the average."""
    args = _parse(argv)
    with in_one_line():
        models = [load_scores(path) for path in args.paths]
        combined = combine(models, args.paths, args.weights)
        rows = {str(name): model.metrics() for name, model in zip(args.models, models, strict=True)}
        print(metrics_table(rows | {"combined": combined.metrics()}))
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            save_scores(args.out, combined)
            write_json(args.out.with_suffix(".json"), combined.metrics() | combined.origin)


if __name__ == "__main__":
    main()
