import csv
import json
import signal
from pathlib import Path

import jax
import pytest
from PIL import Image

from configs import motion
from rsa_jax.studies.definitions import STUDIES
from rsa_jax.tools import ablate
from rsa_jax.training.checkpoints import WorkdirError, claim_workdir
from rsa_jax.training.run import Run, load_info, with_classes
from rsa_jax.training.run_log import NonFiniteLossError
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
    score = Run.score

    def signalled(run, state, views):
        signal.raise_signal(signal.SIGTERM)
        return score(run, state, views)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="Stopped by a signal"):
        patch.setattr(Run, "score", signalled)
        ablate.study(shorten(tiny_config(data_dir)), VARIANTS, 1, folder)
    assert not list(folder.rglob("outcome.json"))
    return folder


@pytest.fixture(scope="module")
def finished(interrupted, data_dir):
    """Folder and outcomes of the same study, resumed."""
    before = (interrupted / "a_b_seed_0" / "metrics.jsonl").read_text()
    outcomes = ablate.study(shorten(tiny_config(data_dir)), VARIANTS, 1, interrupted)
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
    monkeypatch.setattr(ablate, "run", lambda trial: pytest.fail("this one is done"))
    assert ablate.study(short, VARIANTS, 1, folder) == outcomes


def test_other_views_are_evaluated_again(finished, short, monkeypatch):
    ran = []
    monkeypatch.setattr(ablate, "run", lambda trial: ran.append(trial.variant))
    short.eval.num_clips = 2
    ablate.study(short, VARIANTS, 1, finished[0])
    assert ran == list(VARIANTS)


def test_a_run_without_top5_is_evaluated_again(finished, short):
    """Older studies stored only top-1."""
    variants = ablate.variants_of(with_classes(short, load_info(short.data)), VARIANTS)
    trial = ablate.trials(variants, [0], finished[0])[0]
    path = trial.workdir / "outcome.json"
    content = path.read_text()
    assert ablate.is_done(trial)
    older = {name: value for name, value in json.loads(content).items() if name != "top5"}
    path.write_text(json.dumps(older))
    assert not ablate.is_done(trial)
    path.write_text(json.dumps(older | {"top1": "diverged"}))
    assert ablate.is_done(trial)
    assert ablate.collect([trial], variants)[0].top5 == []
    path.write_text(content)


def test_chosen_variants_keep_what_others_have_reached(finished, short, monkeypatch):
    """Neither results nor errors of the other variants get in the way."""
    monkeypatch.setattr(ablate, "run", lambda trial: pytest.fail("this one is done"))
    others = {**VARIANTS, "no such field": {"log.every_step": 2}, "not done": {"log.every_steps": 3}}
    outcomes = ablate.study(short, others, 1, finished[0], ["a *"])
    assert [outcome.variant for outcome in outcomes] == list(VARIANTS)
    assert "logged less" in (finished[0] / "table.md").read_text()


def test_another_configuration_is_refused(finished, short):
    short.batch_size = 8
    with pytest.raises(WorkdirError, match="batch_size: saved 16, current 8"):
        ablate.study(short, VARIANTS, 1, finished[0])


DIVERGED = NonFiniteLossError("step 3: loss nan")
OUT_OF_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


@pytest.mark.parametrize(("error", "reason"), [(DIVERGED, "diverged"), (OUT_OF_MEMORY, "out of memory")])
def test_a_run_that_cannot_end_is_said_in_the_table_and_done(tmp_path, short, monkeypatch, error, reason):
    def fail(config, workdir):
        claim_workdir(workdir, config, {})
        raise error

    monkeypatch.setattr(ablate, "train", fail)
    outcomes = ablate.study(short, VARIANTS, 2, tmp_path)
    assert [outcome.top1 for outcome in outcomes] == [[reason] * 2] * 2
    assert f"|  |  |  |  | {reason}, {reason} |" in (tmp_path / "table.md").read_text()
    monkeypatch.setattr(ablate, "run", lambda trial: pytest.fail("this one is done"))
    assert ablate.study(short, VARIANTS, 2, tmp_path) == outcomes


def test_another_error_ends_the_study(tmp_path, short, monkeypatch):
    def fail(config, workdir):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is lost")

    monkeypatch.setattr(ablate, "train", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        ablate.study(short, VARIANTS, 2, tmp_path)
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
        ablate.study(short, VARIANTS | wrong, 1, tmp_path)
    with pytest.raises(ValueError, match="same folder, .*d_4_seed_0: 'D = 4', 'D=4'"):
        ablate.study(short, {"D = 4": {}, "D=4": {}}, 1, tmp_path)
    assert not list(tmp_path.iterdir())


def test_results_of_some_seeds(tmp_path):
    outcomes = [
        ablate.Outcome(
            "a",
            ablate.Cost(1.5, 0.25),
            [50.0, 54.0, "diverged", 58.0],
            [80.0, 81.0, 82.0],
            [[(4, 50.0)], [(4, 54.0)], [], [(4, 58.0)]],
        ),
        ablate.Outcome("b | c", ablate.Cost(1.0, 0.5), [10.0], [50.0], [[(2, 9.0), (4, 10.0)]]),
    ]
    ablate.write_results(outcomes, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "| a | 1.500 | 0.2500 | 54.0 | 4.0 | 81.0 | 1.0 | 50.0, 54.0, diverged, 58.0 |" in table
    assert r"| b \| c |" in table
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.reader(file))[2] == ["b | c", "1.000", "0.5000", "10.0", "", "50.0", "", "10.0"]
    width, height = Image.open(tmp_path / "plot.png").size
    assert width > height > 100


def test_variants_are_chosen_by_name_and_pattern():
    fields = {"self-attention, window": {}, "self-attention, everywhere": {}, "RSA": {}}
    assert list(ablate.choose_variants(fields, [])) == list(fields)
    assert list(ablate.choose_variants(fields, ["RSA", "*window"])) == ["self-attention, window", "RSA"]
    with pytest.raises(ValueError, match=r"--variants: 'rsa' matches none of\n  self-attention, window"):
        ablate.choose_variants(fields, ["RSA", "rsa"])


def test_variants_start_from_weights_of_their_own(tmp_path, short):
    short.init_from = str(tmp_path / "{transform}" / "{variant}_seed_0")
    fields = {"3x3x3 convolution": {"model.transform": "conv3d"}, "TSN": {}, "own": {"init_from": "none"}}
    variants = ablate.variants_of(with_classes(short, load_info(short.data)), fields)
    places = [variant.config.init_from for variant in variants]
    expected = [str(tmp_path / place) for place in ("conv3d/3x3x3_convolution_seed_0", "conv2d/tsn_seed_0")]
    assert places == [*expected, "none"]
    Path(expected[1]).mkdir(parents=True)
    with pytest.raises(ValueError, match="(?s)do not fit:\n  3x3x3 .* no such file: .*conv3d.*\n  TSN: .*holds no run"):
        ablate.study(short, fields, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    short.init_from = "required"
    with pytest.raises(ValueError, match="init_from: this recipe repeats a published run"):
        ablate.study(short, fields, 1, tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in STUDIES if not name.startswith(("table", "supplement"))])
def test_every_variant_is_a_network_of_its_own(name):
    """For any transform in the configuration. Settings are compared, since another normalisation may cost the same."""
    config = motion.get_config()
    config.model.update(transform="tsm", num_classes=10)
    config.model.rsa.latent_dim = 8  # which some kernels do not have
    variants = ablate.variants_of(config, STUDIES[name])
    assert len({variant.config.model.to_json() for variant in variants}) == len(variants)
    assert len(ablate.trials(variants, range(2), Path())) == 2 * len(variants)
