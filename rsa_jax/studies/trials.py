"""Trials of a study: a run of every variant with every seed, resumed where it was interrupted."""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from rsa_jax.evaluation.evaluator import evaluate_checkpoint
from rsa_jax.evaluation.views import Views
from rsa_jax.files import write_json
from rsa_jax.pictures.study_plot import draw_study
from rsa_jax.studies.definitions import Study
from rsa_jax.studies.results import Outcome, collect, write_tables
from rsa_jax.studies.variants import Variant, choose_variants, make_variants, slug
from rsa_jax.training.dataset import load_info, with_classes
from rsa_jax.training.initial_weights import RANDOM, load_initial_weights, require_initial_weights
from rsa_jax.training.loop import train
from rsa_jax.training.models import blank_model
from rsa_jax.training.run_log import NonFiniteLossError
from rsa_jax.training.workdir import WorkdirError, check_same, read_config


class Trial(NamedTuple):
    """A run of a variant with one seed, and its workdir."""

    variant: str
    config: ConfigDict
    workdir: Path


def make_trials(variants: Sequence[Variant], seeds: Iterable[int], folder: Path) -> list[Trial]:
    """All runs of a study. All variants of a seed come before the next seed, so that partial results are comparable.

    Raises:
        ValueError: If runs of two variants would have the same workdir.
    """
    made: dict[Path, Trial] = {}
    for seed in seeds:
        for variant in variants:
            config = variant.config.copy_and_resolve_references()
            config.seed = seed
            workdir = folder / f"{slug(variant.name)}_seed_{seed}"
            if workdir in made:
                raise ValueError(
                    f"Two variants have the same folder, {workdir}: {made[workdir].variant!r}, {variant.name!r}"
                )
            made[workdir] = Trial(variant.name, config, workdir)
    return list(made.values())


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
    """Train or resume a run, evaluate it, and write outcome.json.

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


def run_study(
    config: ConfigDict, fields: Study, seeds: int, folder: Path, patterns: Sequence[str] = ()
) -> list[Outcome]:
    """Run the trials that are not done yet, and write the results of all finished ones after every run.

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
    variants = make_variants(with_classes(config, info), fields, chosen)
    trials = make_trials(variants, range(config.seed, config.seed + seeds), folder)
    done = {trial.workdir for trial in trials if _is_done(trial, needed=trial.variant in chosen)}
    waiting = [trial for trial in trials if trial.variant in chosen and trial.workdir not in done]
    _check_initial_weights(waiting, info.class_names)
    for number, (trial, left) in enumerate(zip(waiting, _time_left(len(waiting)), strict=True), 1):
        logging.info("Run %d of %d: %s, seed %d%s", number, len(waiting), trial.variant, trial.config.seed, left)
        run(trial)
        done.add(trial.workdir)
        _write_results(trials, done, variants, folder)
    return _write_results(trials, done, variants, folder)


def _write_results(
    trials: Sequence[Trial], done: Collection[Path], variants: Sequence[Variant], folder: Path
) -> list[Outcome]:
    """Write tables and plot of the finished trials, and return their outcomes."""
    workdirs: dict[str, list[Path]] = {}
    for trial in trials:
        if trial.workdir in done:
            workdirs.setdefault(trial.variant, []).append(trial.workdir)
    outcomes = collect(workdirs, variants)
    write_tables(outcomes, folder)
    draw_study(outcomes, folder / "plot.png")
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
    """Load the initial weights of every variant before hours are spent on one of them.

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
