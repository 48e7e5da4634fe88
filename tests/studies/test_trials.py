"""Studies from their trials to their results: interrupted, resumed, failing."""

import json
import signal
from pathlib import Path

import jax
import pytest

from rsa_jax.evaluation.evaluator import Evaluator
from rsa_jax.studies import trials
from rsa_jax.studies.results import collect
from rsa_jax.studies.trials import is_done, make_trials, run_study
from rsa_jax.studies.variants import make_variants
from rsa_jax.training.dataset import load_info, with_classes
from rsa_jax.training.run_log import NonFiniteLossError
from rsa_jax.training.workdir import WorkdirError, claim_workdir
from tests.tiny import tiny_config

# Variants of one network, which is compiled only once.
VARIANTS = {"a | b": {}, "logged less": {"log.every_steps": 2}}


@pytest.fixture
def short(config):
    return shorten(config)


def shorten(config):
    config.epochs, config.optimizer.warmup_epochs = 1, 0
    config.model.transform = "conv2d"
    return config


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, data_dir):
    """Folder of a study that got a signal in the last validation of its first run."""
    folder = tmp_path_factory.mktemp("study")
    score = Evaluator.score

    def signalled(evaluator, state, views):
        signal.raise_signal(signal.SIGTERM)
        return score(evaluator, state, views)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="Stopped by a signal"):
        patch.setattr(Evaluator, "score", signalled)
        run_study(shorten(tiny_config(data_dir)), VARIANTS, 1, folder)
    assert not list(folder.rglob("outcome.json"))
    return folder


@pytest.fixture(scope="module")
def finished(interrupted, data_dir):
    """Folder and outcomes of the same study, resumed."""
    before = (interrupted / "a_b_seed_0" / "metrics.jsonl").read_text()
    outcomes = run_study(shorten(tiny_config(data_dir)), VARIANTS, 1, interrupted)
    assert (interrupted / "a_b_seed_0" / "metrics.jsonl").read_text() == before  # not trained again
    return interrupted, outcomes


def test_a_study_goes_on_where_it_was(finished, short, monkeypatch):
    folder, outcomes = finished
    assert [outcome.variant for outcome in outcomes] == list(VARIANTS)
    for name, outcome in zip(("a_b_seed_0", "logged_less_seed_0"), outcomes, strict=True):
        result = json.loads((folder / name / "eval.json").read_text())
        assert outcome.top1 == [pytest.approx(result["top1"])]
        assert outcome.top5 == [pytest.approx(result["top5"])]
        assert result["step"] == 4
        assert [step for step, _ in outcome.curves[0]] == [4]
        assert outcome.curves[0][-1][1] == pytest.approx(result["top1"])
    monkeypatch.setattr(trials, "run", lambda trial: pytest.fail("this one is done"))
    assert run_study(short, VARIANTS, 1, folder) == outcomes


def test_other_views_are_evaluated_again(finished, short, monkeypatch):
    ran = []
    monkeypatch.setattr(trials, "run", lambda trial: ran.append(trial.variant))
    short.eval.num_clips = 2
    run_study(short, VARIANTS, 1, finished[0])
    assert ran == list(VARIANTS)


def test_a_run_without_top5_is_evaluated_again(finished, short):
    """Older studies stored only top-1."""
    variants = make_variants(with_classes(short, load_info(short.data)), VARIANTS)
    trial = make_trials(variants, [0], finished[0])[0]
    path = trial.workdir / "outcome.json"
    content = path.read_text()
    assert is_done(trial)
    older = {name: value for name, value in json.loads(content).items() if name != "top5"}
    path.write_text(json.dumps(older))
    assert not is_done(trial)
    path.write_text(json.dumps(older | {"top1": "diverged"}))
    assert is_done(trial)
    assert collect({trial.variant: [trial.workdir]}, variants)[0].top5 == []
    path.write_text(content)


def test_chosen_variants_keep_what_others_have_reached(finished, short, monkeypatch):
    """Neither results nor errors of the other variants get in the way."""
    monkeypatch.setattr(trials, "run", lambda trial: pytest.fail("this one is done"))
    others = {**VARIANTS, "no such field": {"log.every_step": 2}, "not done": {"log.every_steps": 3}}
    outcomes = run_study(short, others, 1, finished[0], ["a *"])
    assert [outcome.variant for outcome in outcomes] == list(VARIANTS)
    assert "logged less" in (finished[0] / "table.md").read_text()


def test_another_configuration_is_refused(finished, short):
    short.batch_size = 8
    with pytest.raises(WorkdirError, match="batch_size: saved 16, current 8"):
        run_study(short, VARIANTS, 1, finished[0])


DIVERGED = NonFiniteLossError("step 3: loss nan")
OUT_OF_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


@pytest.mark.parametrize(("error", "reason"), [(DIVERGED, "diverged"), (OUT_OF_MEMORY, "out of memory")])
def test_a_run_that_cannot_end_is_said_in_the_table_and_done(tmp_path, short, monkeypatch, error, reason):
    def fail(config, workdir):
        claim_workdir(workdir, config, {})
        raise error

    monkeypatch.setattr(trials, "train", fail)
    outcomes = run_study(short, VARIANTS, 2, tmp_path)
    assert [outcome.top1 for outcome in outcomes] == [[reason] * 2] * 2
    assert f"|  |  |  |  | {reason}, {reason} |" in (tmp_path / "table.md").read_text()
    monkeypatch.setattr(trials, "run", lambda trial: pytest.fail("this one is done"))
    assert run_study(short, VARIANTS, 2, tmp_path) == outcomes


def test_another_error_ends_the_study(tmp_path, short, monkeypatch):
    def fail(config, workdir):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is lost")

    monkeypatch.setattr(trials, "train", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        run_study(short, VARIANTS, 2, tmp_path)
    assert not list(tmp_path.rglob("outcome.json"))


def test_variants_that_do_not_fit_are_named_before_any_run(tmp_path, short):
    wrong = {
        "three": {"model.transform": "rsa", "model.rsa.num_queries": 3},
        "a stage more": {"model.transform": "rsa", "model.transform_blocks": ((), (), (0,))},
        "no such field": {"log.every_step": 2},
        "no number": {"batch_size": "many"},
    }
    expected = r"(?s)three: model.rsa.num_queries: .*more: .*stage.*no such field: .*every_step.*no number: .*many"
    short.lock()
    with pytest.raises(ValueError, match=expected):
        run_study(short, VARIANTS | wrong, 1, tmp_path)
    with pytest.raises(ValueError, match="same folder, .*d_4_seed_0: 'D = 4', 'D=4'"):
        run_study(short, {"D = 4": {}, "D=4": {}}, 1, tmp_path)
    assert not list(tmp_path.iterdir())


def test_variants_start_from_weights_of_their_own(tmp_path, short):
    short.init_from = str(tmp_path / "{transform}" / "{variant}_seed_0")
    fields = {"3x3x3 convolution": {"model.transform": "conv3d"}, "TSN": {}, "own": {"init_from": "none"}}
    variants = make_variants(with_classes(short, load_info(short.data)), fields)
    places = [variant.config.init_from for variant in variants]
    expected = [str(tmp_path / place) for place in ("conv3d/3x3x3_convolution_seed_0", "conv2d/tsn_seed_0")]
    assert places == [*expected, "none"]
    Path(expected[1]).mkdir(parents=True)
    with pytest.raises(ValueError, match="(?s)do not fit:\n  3x3x3 .* no such file: .*conv3d.*\n  TSN: .*holds no run"):
        run_study(short, fields, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    short.init_from = "required"
    with pytest.raises(ValueError, match="init_from: this recipe repeats a published run"):
        run_study(short, fields, 1, tmp_path / "out")
