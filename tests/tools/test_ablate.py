import csv
import json

import pytest
from flax import nnx
from PIL import Image

from configs import motion
from rsa_jax.network import create_model
from rsa_jax.tools import ablate
from rsa_jax.tools.studies import STUDIES
from rsa_jax.training.checkpoints import WorkdirError
from rsa_jax.training.metrics import NonFiniteLossError

# Of one network, which is compiled but once.
VARIANTS = {"RSA | V": {}, "logged less": {"log.every_steps": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def short(config):
    config.epochs, config.optimizer.warmup_epochs = 1, 0
    return config


def test_a_study_goes_on_where_it_was(folder, short, monkeypatch):
    ran, run = [], ablate.run

    def once(trial):
        if len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(trial.variant)
        run(trial)

    with monkeypatch.context() as patch:
        patch.setattr(ablate, "run", once)
        with pytest.raises(KeyboardInterrupt):
            ablate.study(short, VARIANTS, 1, folder)
    assert len((folder / "table.csv").read_text().splitlines()) == 2
    outcomes = ablate.study(short, VARIANTS, 1, folder)
    assert [outcome.variant for outcome in outcomes] == list(VARIANTS)
    assert ran == ["RSA | V"]
    monkeypatch.setattr(ablate, "run", lambda trial: pytest.fail("this one is done"))
    assert ablate.study(short, VARIANTS, 1, folder) == outcomes
    for name, outcome in zip(("rsa_v_seed_0", "logged_less_seed_0"), outcomes, strict=True):
        result = json.loads((folder / name / "eval.json").read_text())
        assert outcome.top1 == [pytest.approx(result["top1"])]
        assert result["step"] == 4


def test_other_views_are_evaluated_again(folder, short, monkeypatch):
    ran = []
    monkeypatch.setattr(ablate, "run", lambda trial: ran.append(trial.variant))
    short.eval.num_clips = 2
    ablate.study(short, VARIANTS, 1, folder)
    assert ran == list(VARIANTS)


def test_a_signal_ends_the_study(tmp_path, short, monkeypatch):
    """What was trained in part is neither evaluated nor done."""
    monkeypatch.setattr(ablate, "train", lambda config, workdir: False)
    with pytest.raises(SystemExit, match="Stopped by a signal"):
        ablate.study(short, VARIANTS, 1, tmp_path)
    assert not list(tmp_path.rglob("outcome.json"))


def test_a_run_that_diverges_is_said_in_the_table(tmp_path, short, monkeypatch):
    def diverge(config, workdir):
        workdir.mkdir(parents=True)
        raise NonFiniteLossError("step 3: loss nan")

    monkeypatch.setattr(ablate, "train", diverge)
    outcomes = ablate.study(short, VARIANTS, 2, tmp_path)
    assert [outcome.top1 for outcome in outcomes] == [[None, None]] * 2
    assert "|  |  | diverged diverged |" in (tmp_path / "table.md").read_text()


def test_variants_that_do_not_fit_are_named_before_any_run(tmp_path, short):
    wrong = {"three": {"model.rsa.num_queries": 3}, "a stage more": {"model.positions": ((), (), (0,))}}
    with pytest.raises(ValueError, match=r"(?s)three: model.rsa.num_queries: .*a stage more: .*stage"):
        ablate.study(short, VARIANTS | wrong, 1, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_configuration_is_refused(folder, short):
    short.batch_size = 8
    with pytest.raises(WorkdirError, match="batch_size: 16 there, 8 here"):
        ablate.study(short, VARIANTS, 1, folder)


def test_results_of_some_seeds(tmp_path):
    outcomes = [
        ablate.Outcome("a", ablate.Cost(1.5, 0.25), [50.0, 54.0, None, 58.0]),
        ablate.Outcome("b | c", ablate.Cost(1.0, 0.5), [10.0]),
    ]
    ablate.write_results(outcomes, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "| a | 1.500 | 0.2500 | 54.0 | 4.0 | 50.0 54.0 diverged 58.0 |" in table
    assert r"| b \| c |" in table
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.reader(file))[2] == ["b | c", "1.000", "0.5000", "10.0", "", "10.0"]
    width, height = Image.open(tmp_path / "plot.png").size
    assert width > height > 100


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_is_a_network(name):
    for fields in STUDIES[name].values():
        config = motion.get_config()
        config.update_from_flattened_dict(fields)
        nnx.eval_shape(lambda model=config.model: create_model(model, rngs=nnx.Rngs(0)))
