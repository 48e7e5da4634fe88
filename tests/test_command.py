"""The command rsa-jax: its programs, their names, and mistakes in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsa_jax import __main__ as command

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(path.stem for path in (ROOT / "rsa_jax/tools").glob("*.py") if path.stem != "__init__")


def run(*words, **environment):
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


def one_line(result, status=2):
    """The last line of standard error of a refused command. TensorFlow may print others before it, on import."""
    assert result.returncode == status, result.stderr
    *others, line = result.stderr.splitlines()
    assert not any(name in text for text in others for name in ("rsa-jax", "usage", "Error", "Traceback")), others
    return line


def test_the_programs_are_those_of_the_folder(capsys):
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == sorted([*PROGRAMS, "eval"])
    assert "  prepare    Prepare a data set: decode videos and store their frames for training." in lines
    assert all(line.endswith(".") for line in lines)


def test_listing_them_imports_none_of_their_packages():
    code = "import sys; from rsa_jax.__main__ import main; main(['-h']); print({'jax', 'absl'} & set(sys.modules))"
    assert run("-c", code).stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_names_the_program(name, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        command.main([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: rsa-jax {name} ")
    assert f"python -m rsa_jax {name} " in text
    assert "rsa_jax.tools" not in text


def test_an_unknown_program_is_one_line():
    assert one_line(run("-m", "rsa_jax", "tran")).startswith("rsa-jax: there is no program 'tran'; there are ablate, ")


@pytest.mark.parametrize("mode", [["--mode", "train"], ["--mode=eval"]])
def test_eval_has_no_mode(mode, capsys):
    assert command.main(["eval", *mode, "--config", "configs/motion.py", "--workdir", "x"]) == 2
    assert "rsa-jax eval: unrecognized arguments: --mode" in capsys.readouterr().err


def test_eval_evaluates(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match="holds no run"):
        command.main(["eval", "--config", "tests/tiny.py", "--workdir", str(tmp_path / "none")])


def test_mistakes_of_main_are_one_line():
    motion = ["main.py", "--config=configs/motion.py"]
    assert "--workdir: expected a folder, got ''" in one_line(run(*motion, "--workdir", ""))
    assert "--coordinator: needs --multihost" in one_line(run(*motion, "--workdir=x", "--coordinator=localhost:1"))
    line = one_line(run(*motion, "--workdir=x", "--config.batchsize=8"))
    assert line.startswith("rsa-jax train: --config: no such field: 'batchsize' Did you mean \"batch_size\"")
    line = one_line(run("-m", "rsa_jax", "summary", "--workdir", "/no/such/workdir"), status=1)
    assert line.startswith("WorkdirError: /no/such/workdir")


def test_a_program_starts_as_a_module():
    assert run("-m", "rsa_jax.tools.summary", "--help").stdout.startswith("usage: rsa-jax summary ")


@pytest.mark.parametrize(("before", "after"), [(None, "2"), ("1", "2"), ("0", "0"), ("3", "3")])
def test_tensorflow_logs_errors_only_unless_the_user_wants_more(monkeypatch, before, after):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if before is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", before)
    with pytest.raises(SystemExit):
        command.main(["combine", "--help"])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == after


def test_a_missing_package_of_an_extra_is_one_line():
    code = """
import sys
sys.modules["tensorflow"] = None
from rsa_jax.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    result = run("-c", code, "prepare", "video_folder", "--source=/no")
    assert one_line(result, status=1) == "tensorflow is not installed: pip install '.[train]' in a clone of rsa-jax"
