"""Trains the variants of a study over several seeds, and writes what came out as a table and a plot.

python -m rsa_jax.tools.ablate --config configs/motion.py --study transforms --out docs/ablations [--seeds 3]

OUT/STUDY gets a workdir for every run, table.md, table.csv and plot.png, which are written anew after every run.
Started again, the same command goes on where it was.
"""

import csv
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from absl import app, flags, logging
from ml_collections import ConfigDict

from rsa_jax.files import complete
from rsa_jax.flags import CONFIG
from rsa_jax.logs import setup_logging
from rsa_jax.tools.profile import profile
from rsa_jax.tools.studies import STUDIES
from rsa_jax.training.checkpoints import check_same, read_config
from rsa_jax.training.loop import evaluate_checkpoint, train
from rsa_jax.training.run import load_info, with_classes
from rsa_jax.training.scores import load_scores

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STUDY = flags.DEFINE_enum("study", None, list(STUDIES), "Which variants are compared.")
OUT = flags.DEFINE_string("out", None, "Folder of the runs and of the results.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of every variant, with seeds from config.seed on.", lower_bound=1)


class Trial(NamedTuple):
    """A run of a variant: its name, its configuration and where it lies."""

    variant: str
    config: ConfigDict
    workdir: Path


class Outcome(NamedTuple):
    """What a variant costs and reaches: millions of parameters, billions of multiply-adds, top-1 by seed in percent."""

    variant: str
    parameters: float
    multiply_adds: float
    top1: Sequence[float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.mean(self.top1)

    @property
    def deviation(self) -> float | None:
        """Of the sample; a single one has none."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None


def trials(config: ConfigDict, variants: dict[str, dict[str, Any]], seeds: int, folder: Path) -> list[Trial]:
    """All runs of a study. All variants of a seed come before the next seed, so that a part of them compares.

    Args:
        config: of all runs.
        variants: fields that a variant changes, by its name.
        seeds: runs of every variant.
        folder: of the study.
    """
    made = []
    for seed in range(config.seed, config.seed + seeds):
        for number, (variant, fields) in enumerate(variants.items()):
            changed = config.copy_and_resolve_references()
            changed.update_from_flattened_dict(fields)
            changed.seed = seed
            # The last checkpoint, not the best: choosing by the figure that is compared would flatter the noisy.
            changed.eval.checkpoint = "latest"
            made.append(Trial(variant, changed, folder / f"variant_{number}_seed_{seed}"))
    return made


def is_done(trial: Trial) -> bool:
    """Whether the run has ended and was evaluated.

    Raises:
        WorkdirError: it is that of another configuration.
    """
    if not (trial.workdir / "scores.npz").exists():
        return False
    config = with_classes(trial.config, load_info(trial.config.data))
    check_same(read_config(trial.workdir), config, trial.workdir)
    return True


def run(trial: Trial) -> None:
    """Trains, going on where an interrupted run was, and evaluates.

    Raises:
        SystemExit: a signal stopped it.
    """
    if not train(trial.config, trial.workdir):
        raise SystemExit("Stopped by a signal. The same command goes on from here.")
    evaluate_checkpoint(trial.config, trial.workdir)


def collect(done: Sequence[Trial]) -> list[Outcome]:
    """One outcome a variant, in the order of the study."""
    outcomes = []
    for variant in dict.fromkeys(trial.variant for trial in done):
        own = [trial for trial in done if trial.variant == variant]
        config = with_classes(own[0].config, load_info(own[0].config.data))
        costs = profile(config)
        parameters = sum(cost.parameters for cost in costs) / 1e6
        multiply_adds = sum(cost.multiply_adds for cost in costs) / 1e9
        top1 = [load_scores(trial.workdir / "scores.npz").metrics()["top1"] for trial in own]
        outcomes.append(Outcome(variant, parameters, multiply_adds, top1))
    return outcomes


def write_results(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Writes table.md, table.csv and plot.png."""
    header = ["variant", "parameters, M", "multiply-adds, G", "top-1, %", "deviation", "seeds"]
    rows = [_row(outcome) for outcome in outcomes]
    with complete(folder / "table.md") as partial:
        lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        partial.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
    with complete(folder / "table.csv") as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    draw(outcomes, folder / "plot.png")


def _row(outcome: Outcome) -> list[str]:
    deviation = "" if outcome.deviation is None else f"{outcome.deviation:.1f}"
    seeds = " ".join(f"{value:.1f}" for value in outcome.top1)
    costs = f"{outcome.parameters:.3f}", f"{outcome.multiply_adds:.4f}"
    return [outcome.variant, *costs, f"{outcome.mean:.1f}", deviation, seeds]


def draw(outcomes: Sequence[Outcome], out: Path) -> None:
    """Top-1 of every variant: a dot a seed, a line at the mean and a bar of one deviation to either side."""
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.32 * len(outcomes)), layout="constrained")
    for row, outcome in enumerate(outcomes):
        spread = outcome.deviation or 0.0
        axes.barh(row, 2 * spread, 0.5, outcome.mean - spread, color="tab:blue", alpha=0.2)
        axes.vlines(outcome.mean, row - 0.3, row + 0.3, color="tab:blue")
        axes.plot(outcome.top1, [row] * len(outcome.top1), "o", color="tab:blue", markersize=4, alpha=0.6)
        axes.annotate(f"{outcome.mean:.1f}", (101, row), annotation_clip=False, va="center", fontsize=8)
    axes.set_yticks(range(len(outcomes)), [outcome.variant for outcome in outcomes])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("validation top-1, %")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def study(config: ConfigDict, variants: dict[str, dict[str, Any]], seeds: int, folder: Path) -> list[Outcome]:
    """Runs what is not done yet, and writes the results after every run.

    Raises:
        ValueError: a field of the configuration is wrong, or the folder holds runs of another one.
    """
    made = trials(config, variants, seeds, folder)
    done = {trial.workdir for trial in made if is_done(trial)}
    waiting = [trial for trial in made if trial.workdir not in done]
    for trial, left in zip(waiting, _time_left(len(waiting)), strict=True):
        logging.info("Run %d of %d: %s, seed %d%s", len(done) + 1, len(made), trial.variant, trial.config.seed, left)
        run(trial)
        done.add(trial.workdir)
        write_results(collect([trial for trial in made if trial.workdir in done]), folder)
    outcomes = collect(made)
    write_results(outcomes, folder)
    return outcomes


def _time_left(runs: int) -> Iterator[str]:
    """To say before each run."""
    start = time.perf_counter()
    for index in range(runs):
        minutes = (time.perf_counter() - start) / 60
        yield f"; about {minutes / index * (runs - index):.0f} minutes left" if index else ""


def main(argv: list[str]) -> None:
    """Runs the study that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    setup_logging()
    folder = Path(OUT.value or "").expanduser() / (STUDY.value or "")
    try:
        study(CONFIG.value, STUDIES[STUDY.value or ""], SEEDS.value, folder)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    print((folder / "table.md").read_text())
    print(f"Table and plot are in {folder}.")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "study", "out"])
    app.run(main)
