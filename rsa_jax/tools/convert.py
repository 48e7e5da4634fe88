"""Converts weights of PyTorch into a workdir, a workdir into weights of PyTorch, or a file of weights into another.

python -m rsa_jax.tools.convert WEIGHTS WORKDIR --config configs/ssv1.py [--config.data.num_frames=16 ...]
python -m rsa_jax.tools.convert WORKDIR WEIGHTS [--checkpoint best|latest|STEP]
python -m rsa_jax.tools.convert WEIGHTS WEIGHTS

WEIGHTS is a file of the released code (.pth.tar, .pth, .pt), .safetensors or .npz. The network is told by its names
and shapes; the configuration says the rest, above all the data set. main.py --mode eval evaluates the workdir.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from rsa_jax.flags import CONFIG
from rsa_jax.logs import setup_logging
from rsa_jax.network import STAGE_SIZES, count_parameters
from rsa_jax.training.models import blank_model, load_model, save_model
from rsa_jax.weights import guess_model, load_torch, read_state_dict, to_torch, write_state_dict
from rsa_jax.weights.files import FORMATS

CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "Of the workdir: best, latest or a step.")


def convert_into_workdir(source: Path, workdir: Path, config: ConfigDict) -> dict[str, Any]:
    """Makes a workdir of a file of weights.

    Args:
        source: file of weights.
        workdir: to make.
        config: of the run it shall stand for; what the weights say of the network replaces its fields.

    Returns:
        What the weights say: of `guess_model`.

    Raises:
        ValueError: the file cannot be read, is not the network of the published code, or the workdir holds a run.
    """
    state_dict = read_state_dict(source)
    guessed = guess_model(state_dict)
    config = config.copy_and_resolve_references()
    config.model.update(guessed)
    model = blank_model(config.model)
    load_torch(model, state_dict)
    save_model(model, config, workdir, source=str(source))
    return guessed


def changed_fields(config: ConfigDict, fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Those fields, by their dotted names, that the configuration has other values for."""
    changed: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            changed |= changed_fields(config[name], value, f"{prefix}{name}.")
        elif value != config[name]:
            changed[prefix + name] = value
    return changed


def _into_workdir(source: Path, workdir: Path) -> None:
    if CONFIG.value is None:
        raise ValueError("a workdir needs --config, a file of configs/: it says the data set and the frames of a clip")
    guessed = convert_into_workdir(source, workdir, CONFIG.value)
    print(f"Found in {source}:\n  " + "\n  ".join(_said(guessed)))
    flag = flags.FLAGS["config"]
    fields = config_flags.get_override_values(flag) | changed_fields(CONFIG.value, {"model": guessed})
    # None is what such a field is without a flag, and no flag says None.
    overrides = [f"--config.{name}={value}" for name, value in fields.items() if value is not None]
    command = ["python", "main.py", "--config", config_flags.get_config_filename(flag), "--workdir", str(workdir)]
    print(f"Written to {workdir}. To evaluate it:\n  {shlex.join([*command, '--mode', 'eval', *overrides])}")


def _said(guessed: dict[str, Any]) -> Iterator[str]:
    blocks = guessed["stage_sizes"] or STAGE_SIZES[guessed["depth"]]
    kind = "bottlenecks" if guessed["depth"] >= 50 else "basic blocks"
    yield f"{kind} {blocks} (depth {guessed['depth']}), width {guessed['width']}, {guessed['num_classes']} classes"
    if guessed["transform"] == "rsa":
        settings = dict(guessed["rsa"])
        settings["latent_dim"] = settings["latent_dim"] or "channels per query"
        yield f"RSA in blocks {guessed['positions']}: " + ", ".join(f"{name} {it}" for name, it in settings.items())
    else:
        yield "no RSA"


def _out_of_workdir(workdir: Path, target: Path) -> None:
    model = load_model(workdir, CHECKPOINT.value)
    write_state_dict(target, to_torch(model))
    print(f"{count_parameters(model):,} parameters of the {CHECKPOINT.value} checkpoint of {workdir}: {target}")


def main(argv: list[str]) -> None:
    """Converts what the arguments say: a file into a workdir, a workdir into a file, or a file into another."""
    if len(argv) != 3:
        raise app.UsageError("expected SOURCE and TARGET: files of weights (" + ", ".join(FORMATS) + ") or a workdir")
    setup_logging()
    source, target = (Path(argument).expanduser() for argument in argv[1:])
    try:
        if source.is_dir():
            _out_of_workdir(source, target)
        elif target.suffix in FORMATS:
            write_state_dict(target, read_state_dict(source))
        else:
            _into_workdir(source, target)
    except (ValueError, ImportError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    app.run(main)
