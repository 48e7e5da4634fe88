"""Trains the variants of a study over several seeds, and writes the results as a table and a plot.

python -m rsa_jax.tools.ablate --config configs/motion.py --study transforms --out ablations [--seeds 3]
    [--variants PATTERN ...]

Studies are defined in rsa_jax/studies/definitions.py. --variants trains only the variants whose names match a pattern,
in which * matches any text. In --config.init_from, {variant} stands for the variant's name as in its folder name and
{transform} for model.transform, so that every variant can start from its own weights.

OUT/STUDY holds a workdir for every run, and table.md, table.csv and plot.png, which are rewritten after every run.
The same command resumes an interrupted study. Results cover the requested seeds. Runs that diverge (non-finite loss) or
run out of memory are marked as such in the results; remove their workdirs to try them again.
"""

import csv
import fnmatch
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib
from absl import app, flags, logging
from ml_collections import ConfigDict

from rsa_jax.errors import in_one_line
from rsa_jax.evaluation.evaluator import Views
from rsa_jax.evaluation.report.charts import read_records
from rsa_jax.files import complete, write_json
from rsa_jax.flags import CONFIG, OUT, parse
from rsa_jax.logs import setup_logging
from rsa_jax.studies.definitions import STUDIES, Study
from rsa_jax.tools.profile import profile
from rsa_jax.training.checkpoints import WorkdirError, check_same, read_config
from rsa_jax.training.loop import evaluate_checkpoint, train
from rsa_jax.training.models import RANDOM, blank_model, load_initial_weights, require_initial_weights
from rsa_jax.training.run import load_info, with_classes
from rsa_jax.training.run_log import NonFiniteLossError

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

STUDY = flags.DEFINE_enum("study", None, list(STUDIES), "Which variants are compared.")
VARIANTS = flags.DEFINE_multi_string(
    "variants",
    [],
    "Name of a variant, or pattern such as 'self-attention*'; may be repeated. Default: all variants of the study.",
)
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of every variant, with seeds from config.seed on.", lower_bound=1)


class Cost(NamedTuple):
    """Cost of a variant: millions of parameters, billions of MACs per clip."""

    parameters: float
    macs: float


class Variant(NamedTuple):
    """A variant of a study: its name, configuration and cost."""

    name: str
    config: ConfigDict
    cost: Cost


class Trial(NamedTuple):
    """A run of a variant with one seed, and its workdir."""

    variant: str
    config: ConfigDict
    workdir: Path


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
    cost: Cost
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


def choose_variants(fields: Study, patterns: Sequence[str]) -> Study:
    """Variants of a study whose names match one of the patterns; without patterns, all of them.

    Raises:
        ValueError: If a pattern matches no name. The message lists the names.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in fields):
            raise ValueError(f"--variants: {pattern!r} matches none of\n  " + "\n  ".join(fields))
    return {
        name: changes
        for name, changes in fields.items()
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def variants_of(config: ConfigDict, fields: Study, needed: Collection[str] | None = None) -> list[Variant]:
    """Variants of a study with their cost, checked before hours are spent on one of them.

    Args:
        config: base configuration of all variants.
        fields: fields that each variant changes, by its name.
        needed: names of the variants that the configuration must fit; others that do not fit are left out. None: all.

    Raises:
        ValueError: If the configuration does not fit some needed variants. The message names each, and the reason.
    """
    variants: list[Variant] = []
    wrong = []
    for name, changes in fields.items():
        changed = config.copy_and_resolve_references()
        # The last checkpoint, not the best: selection by the compared metric would favour noisy variants.
        changed.eval.checkpoint = "latest"
        try:
            changed.update_from_flattened_dict(changes)
            changed.init_from = changed.init_from.replace("{variant}", _slug(name)).replace(
                "{transform}", changed.model.transform
            )
            variants.append(Variant(name, changed, cost_of(changed)))
        except (KeyError, TypeError, ValueError) as error:
            if needed is None or name in needed:
                wrong.append(f"  {name}: {error.args[0]}")
    if wrong:
        raise ValueError("Variants that this configuration does not fit:\n" + "\n".join(wrong))
    return variants


def cost_of(config: ConfigDict) -> Cost:
    """Cost of the network."""
    layers = profile(config)
    parameters, macs = (sum(getattr(layer, name) for layer in layers) for name in Cost._fields)
    return Cost(parameters / 1e6, macs / 1e9)


def trials(variants: Sequence[Variant], seeds: Iterable[int], folder: Path) -> list[Trial]:
    """All runs of a study. All variants of a seed come before the next seed, so that partial results are comparable.

    Raises:
        ValueError: If runs of two variants would have the same workdir.
    """
    made: dict[Path, Trial] = {}
    for seed in seeds:
        for variant in variants:
            config = variant.config.copy_and_resolve_references()
            config.seed = seed
            workdir = folder / f"{_slug(variant.name)}_seed_{seed}"
            if workdir in made:
                raise ValueError(
                    f"Two variants have the same folder, {workdir}: {made[workdir].variant!r}, {variant.name!r}"
                )
            made[workdir] = Trial(variant.name, config, workdir)
    return list(made.values())


def _slug(variant: str) -> str:
    """Folder name for a variant."""
    return re.sub("[^a-z0-9.]+", "_", variant.lower()).strip("_")


def is_done(trial: Trial) -> bool:
    """Whether the run has ended and was evaluated with the views of the configuration.

    Raises:
        WorkdirError: If the workdir belongs to another configuration.
    """
    if not (trial.workdir / "config.json").exists():
        return False
    check_same(read_config(trial.workdir), trial.config, trial.workdir)
    if not (trial.workdir / "outcome.json").exists():
        return False
    outcome = json.loads((trial.workdir / "outcome.json").read_text())
    whole = isinstance(outcome["top1"], str) or "top5" in outcome  # older outcomes of completed runs have no top-5
    return whole and outcome["views"] == asdict(Views.of(trial.config))


def run(trial: Trial) -> None:
    """Trains or resumes a run, evaluates it, and writes outcome.json.

    Raises:
        SystemExit: If a signal stopped it.
    """
    try:
        if not train(trial.config, trial.workdir):
            raise SystemExit("Stopped by a signal. Run the same command to resume.")
        result = evaluate_checkpoint(trial.config, trial.workdir)
        top1, top5 = result["top1"], result["top5"]
    except NonFiniteLossError as error:
        logging.warning("%s diverges with seed %d: %s", trial.variant, trial.config.seed, error)
        top1, top5 = "diverged", None
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        logging.warning("%s does not fit into memory with seed %d: %s", trial.variant, trial.config.seed, error)
        top1, top5 = "out of memory", None
    write_json(trial.workdir / "outcome.json", {"top1": top1, "top5": top5, "views": asdict(Views.of(trial.config))})


def collect(done: Sequence[Trial], variants: Sequence[Variant]) -> list[Outcome]:
    """One outcome for each variant that has finished runs, in the order of the study."""
    outcomes = []
    for variant in variants:
        if workdirs := [trial.workdir for trial in done if trial.variant == variant.name]:
            results = [json.loads((workdir / "outcome.json").read_text()) for workdir in workdirs]
            top1 = [result["top1"] for result in results]
            top5 = [result["top5"] for result in results if not isinstance(result["top1"], str)]
            curves = [_validations(workdir) for workdir in workdirs]
            outcomes.append(Outcome(variant.name, variant.cost, top1, top5, curves))
    return outcomes


def _validations(workdir: Path) -> list[tuple[int, float]]:
    records = read_records(workdir / "metrics.jsonl")
    return [(record["step"], record["validation_top1"]) for record in records if "validation_top1" in record]


def write_results(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Writes table.md, table.csv and plot.png."""
    header = ["variant", "parameters, M", "MACs, G"]
    header += ["top-1, %", "standard deviation", "top-5, %", "standard deviation of top-5", "each seed"]
    rows = [_row(outcome) for outcome in outcomes]
    with complete(folder / "table.md") as partial:
        lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        partial.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
    with complete(folder / "table.csv") as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    draw(outcomes, folder / "plot.png")


def _row(outcome: Outcome) -> list[str]:
    seeds = ", ".join(value if isinstance(value, str) else f"{value:.1f}" for value in outcome.top1)
    figures = (outcome.mean, outcome.deviation, _mean(outcome.top5), _deviation(outcome.top5))
    cost = f"{outcome.cost.parameters:.3f}", f"{outcome.cost.macs:.4f}"
    return [outcome.variant, *cost, *("" if value is None else f"{value:.1f}" for value in figures), seeds]


def draw(outcomes: Sequence[Outcome], out: Path) -> None:
    """Plots the top-1 of every variant: at the end, with mean and deviation, and during the runs, one line per seed."""
    figure, (ends, runs) = plt.subplots(
        1, 2, figsize=(11, max(3, 0.8 + 0.32 * len(outcomes))), width_ratios=(4, 3), layout="constrained"
    )
    for row, outcome in enumerate(outcomes):
        color = f"C{row % 10}"
        draw_end(ends, row, outcome, color)
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
    plt.close(figure)


def draw_end(axes: Axes, row: int, outcome: Outcome, color: str) -> None:
    """Draws a dot per seed, a line and a label at the mean, and a bar of one deviation to either side."""
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


def study(config: ConfigDict, fields: Study, seeds: int, folder: Path, patterns: Sequence[str] = ()) -> list[Outcome]:
    """Runs the trials that are not done yet, and writes the results of all finished ones after every run.

    Args:
        config: base configuration of all variants; its seed is the first.
        fields: fields that each variant changes, by its name.
        seeds: number of runs of each variant.
        folder: folder of the study.
        patterns: variants to run, as in `choose_variants`.

    Raises:
        ValueError: If the configuration or the initial weights do not fit a variant, or the folder holds runs of
            another configuration.
        SystemExit: If a signal stopped a run.
    """
    chosen = choose_variants(fields, patterns)
    require_initial_weights(config)
    info = load_info(config.data)
    variants = variants_of(with_classes(config, info), fields, chosen)
    made = trials(variants, range(config.seed, config.seed + seeds), folder)
    done = {trial.workdir for trial in made if _is_done(trial, needed=trial.variant in chosen)}
    waiting = [trial for trial in made if trial.variant in chosen and trial.workdir not in done]
    _check_initial_weights(waiting, info.class_names)
    for number, (trial, left) in enumerate(zip(waiting, _time_left(len(waiting)), strict=True), 1):
        logging.info("Run %d of %d: %s, seed %d%s", number, len(waiting), trial.variant, trial.config.seed, left)
        run(trial)
        done.add(trial.workdir)
        write_results(collect([trial for trial in made if trial.workdir in done], variants), folder)
    outcomes = collect([trial for trial in made if trial.workdir in done], variants)
    write_results(outcomes, folder)
    return outcomes


def _is_done(trial: Trial, needed: bool) -> bool:
    """`is_done`, but a run of another configuration is an error only if it is needed."""
    try:
        return is_done(trial)
    except WorkdirError:
        if needed:
            raise
        return False


def _check_initial_weights(waiting: Sequence[Trial], class_names: Sequence[str]) -> None:
    """Loads the initial weights of every variant before hours are spent on one of them.

    Raises:
        ValueError: If some are missing or do not fit. The message names each with its variant.
    """
    starting = {trial.variant: trial for trial in waiting if not (trial.workdir / "config.json").exists()}
    wrong = []
    for variant, trial in starting.items():
        if trial.config.init_from != RANDOM:
            try:
                load_initial_weights(blank_model(trial.config.model), trial.config, class_names)
            except ValueError as error:
                wrong.append(f"  {variant}: {error}")
    if wrong:
        raise ValueError("Initial weights that do not fit:\n" + "\n".join(wrong))


def _time_left(runs: int) -> Iterator[str]:
    """Estimated remaining time as text, for the log line before each run."""
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
    with in_one_line(RuntimeError):
        study(CONFIG.value, STUDIES[STUDY.value or ""], SEEDS.value, folder, VARIANTS.value)
    print((folder / "table.md").read_text())
    print(f"Table and plot are in {folder}.")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "study", "out"])
    app.run(main, flags_parser=parse)
