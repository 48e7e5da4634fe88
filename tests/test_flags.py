"""Arguments of programs: the configuration, its fields, and mistakes in one line."""

import sys

import pytest

from rsa_jax.flags import Parser, at_least, folder, parse_with_config

CONFIG = """
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from rsa_jax.settings import default_config

def get_config():
    config = default_config()
    inner = ConfigDict({"size": 1, "window": (3, 3, 3)})
    config.update({"rate": 0.5, "flip": False, "name": "a", "classes": placeholder(int), "inner": inner})
    return config
"""


@pytest.fixture(autouse=True)
def _no_module_of_an_earlier_test(monkeypatch):
    """The module of a configuration file always has this name, and keeps the functions of the file before."""
    monkeypatch.delitem(sys.modules, "config_config", raising=False)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


def parse(*words, required=True):
    parser = Parser("demo", "A program.")
    parser.add_argument("source", nargs="?")
    parser.add_argument("--clips", type=at_least(1))
    parser.add_argument("--workdir", type=folder)
    return parse_with_config(parser, words, required)


def refuse(capsys, *words):
    """The line on standard error, without the program."""
    with pytest.raises(SystemExit, match="^2$"):
        parse(*words)
    err = capsys.readouterr().err
    assert err.startswith("rsa-jax demo: ")
    assert err.count("\n") == 1
    return err.removeprefix("rsa-jax demo: ").rstrip()


def test_fields_are_changed_in_all_ways(config):
    fields = ["--config.rate=2", "--config.inner.size", "7", "--config.flip", "--config.classes=4"]
    args = parse("--clips", "3", "--config", config, "file", *fields, "--config.inner.window=(1,5,5)")
    assert (args.source, args.clips, args.config_file) == ("file", 3, config)
    assert args.config.rate == 2.0
    assert args.config.flip is True
    assert args.config.classes == 4
    assert args.config.name == "a"
    assert args.config.inner.to_dict() == {"size": 7, "window": (1, 5, 5)}
    assert args.changes == {"rate": 2.0, "inner.size": 7, "flip": True, "classes": 4, "inner.window": (1, 5, 5)}
    assert parse(f"--config={config}", "--config.flip=true", "--noconfig.flip").config.flip is False
    with pytest.raises(AttributeError):
        args.config.no_such_field = 1


def test_a_configuration_without_the_fields_of_a_run(tmp_path, capsys):
    path = tmp_path / "config.py"
    path.write_text("import ml_collections\ndef get_config(): return ml_collections.ConfigDict({'seed': 1})")
    start = "begin with rsa_jax.settings.default_config()"
    assert refuse(capsys, f"--config={path}") == f"--config: {path}: there is no field batch_size; {start}"


def test_without_a_configuration():
    args = parse("file", required=False)
    assert (args.source, args.config, args.config_file, args.changes) == ("file", None, None, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.sise=1"], "--config: no such field: "),
        (["--config.inner.sise=1"], '--config: no such field: \'sise\' Did you mean "size" instead of "sise"?'),
        (["--config.iner.size=1"], '--config: no such field: \'iner\' Did you mean "inner" instead of "iner"?'),
        (["--config.inner.size=many"], "--config.inner.size=many: invalid literal"),
        (["--config.rate=x"], "--config.rate=x: could not convert string to float"),
        (["--config.classes=x"], "--config.classes=x: invalid literal"),
        (["--config.inner.window=(1,"], "--config.inner.window=(1,: Error while parsing string"),
        (["--config.flip=7"], "--config.flip=7: "),
        (["--config.rate"], "Missing value for flag --config.rate"),
        (["--config.batch_size=0"], "--config: batch_size: expected at least 1, got 0"),
        (["--conf=x"], "unrecognized arguments: --conf=x"),
        (["--no_such_flag"], "unrecognized arguments: --no_such_flag"),
        (["--undefok=rate"], "unrecognized arguments: --undefok=rate"),
        (["--clips=0"], "argument --clips: expected at least 1, got 0"),
        (["--clips=x"], "argument --clips: expected an integer, got 'x'"),
        (["--workdir", ""], "argument --workdir: expected a folder on a file system, got ''"),
    ],
)
def test_a_wrong_argument_is_one_line(config, capsys, words, message):
    assert refuse(capsys, "--config", config, *words).startswith(message)


def test_a_missing_configuration_is_one_line(capsys, tmp_path):
    assert refuse(capsys) == "the following arguments are required: --config"
    assert refuse(capsys, "--config") == "argument --config: expected one argument"
    assert refuse(capsys, "--config=no.py") == "--config: No such file or directory: 'no.py'"
    assert refuse(capsys, f"--config={tmp_path}") == f"--config: Is a directory: '{tmp_path}'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config(:", "SyntaxError: "),
        ("def get_confg(): pass", "there is no function get_config"),
        ("def get_config(): return 3", "get_config could not read a file, or returned no ConfigDict"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "config.py"
    path.write_text(text)
    assert refuse(capsys, "--config", str(path)).startswith(f"--config: {path}: {message}")


@pytest.mark.parametrize("bug", ["{}['a']", "object().a", "1 + 'a'", "int('a')", "1 / 0"])
def test_a_bug_in_a_configuration_file_keeps_its_traceback(tmp_path, monkeypatch, bug):
    path = tmp_path / "config.py"
    path.write_text(f"def get_config():\n    return {bug}\n")
    monkeypatch.chdir(tmp_path)
    for file in (str(path), "config.py"):
        with pytest.raises(Exception):  # noqa: B017 - any but SystemExit, which is no Exception
            parse("--config", file)
