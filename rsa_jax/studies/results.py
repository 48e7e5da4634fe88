"""Results of a study: the accuracy of every variant, and tables of them."""

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rsa_jax.costs.traced import NetworkCost
from rsa_jax.evaluation.report.charts import read_records
from rsa_jax.files import complete
from rsa_jax.studies.variants import Variant


class Outcome(NamedTuple):
    """Cost of a variant, and its accuracy with each seed.

    Attributes:
        variant: name of the variant.
        cost: cost of its network.
        top1: final top-1 of each run, in percent; or the reason why there is none.
        top5: final top-5 of the completed runs, in percent.
        curves: steps and top-1 of the validations during each run.
    """

    variant: str
    cost: NetworkCost
    top1: Sequence[float | str]
    top5: Sequence[float]
    curves: Sequence[Sequence[tuple[int, float]]]

    @property
    def reached(self) -> list[float]:
        """Top-1 of the completed runs."""
        return [value for value in self.top1 if not isinstance(value, str)]

    @property
    def mean(self) -> float | None:
        """Mean of `reached`; None if it is empty."""
        return _mean(self.reached)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of `reached`; None for fewer than two runs."""
        return _deviation(self.reached)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def collect(workdirs: Mapping[str, Sequence[Path]], variants: Sequence[Variant]) -> list[Outcome]:
    """One outcome for each variant that has finished runs, in the order of the study.

    Args:
        workdirs: workdirs of the finished runs of each variant, by its name.
        variants: all variants.
    """
    return [_outcome(variant, workdirs[variant.name]) for variant in variants if workdirs.get(variant.name)]


def _outcome(variant: Variant, workdirs: Sequence[Path]) -> Outcome:
    results = [json.loads((workdir / "outcome.json").read_text()) for workdir in workdirs]
    top1 = [result["top1"] for result in results]
    top5 = [result["top5"] for result in results if not isinstance(result["top1"], str)]
    return Outcome(variant.name, variant.cost, top1, top5, [_validations(workdir) for workdir in workdirs])


def _validations(workdir: Path) -> list[tuple[int, float]]:
    records = read_records(workdir / "metrics.jsonl")
    return [(record["step"], record["validation_top1"]) for record in records if "validation_top1" in record]


def write_tables(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write table.md and table.csv."""
    header = ["variant", "parameters, M", "MACs, G"]
    header += ["top-1, %", "standard deviation", "top-5, %", "standard deviation of top-5", "each seed"]
    rows = [_row(outcome) for outcome in outcomes]
    with complete(folder / "table.md") as partial:
        lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        partial.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
    with complete(folder / "table.csv") as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _row(outcome: Outcome) -> list[str]:
    seeds = ", ".join(value if isinstance(value, str) else f"{value:.1f}" for value in outcome.top1)
    figures = (outcome.mean, outcome.deviation, _mean(outcome.top5), _deviation(outcome.top5))
    cost = f"{outcome.cost.parameters:.3f}", f"{outcome.cost.macs:.4f}"
    return [outcome.variant, *cost, *("" if value is None else f"{value:.1f}" for value in figures), seeds]
