"""Converts weights of PyTorch into a workdir, or a workdir into weights of PyTorch.

python -m rsa_jax.tools.convert WEIGHTS WORKDIR --config configs/ssv1.py [--config.data.num_frames=16 ...]
python -m rsa_jax.tools.convert WORKDIR WEIGHTS [--checkpoint best|latest|STEP]

WEIGHTS is a file of the released code (.pth.tar, .pth, .pt), .safetensors or .npz. The network is told by its names
and shapes; the configuration says the rest, above all the data set. main.py --mode eval evaluates the workdir.
"""

import shlex
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from rsa_jax.flags import CONFIG
from rsa_jax.logs import setup_logging
from rsa_jax.network import count_parameters
from rsa_jax.training.models import blank_model, load_model, save_model
from rsa_jax.weights import guess_model, load_torch, read_state_dict, to_torch, write_state_dict
from rsa_jax.weights.files import is_weights_file

CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "Of the workdir: best, latest or a step.")


def convert_into_workdir(source: Path, workdir: Path, config: ConfigDict) -> ConfigDict:
    """Makes a workdir of a file of weights.

    Args:
        source: file of weights.
        workdir: to make.
        config: of the run it shall stand for; what the weights say of the network replaces its fields.

    Returns:
        The configuration with those fields.

    Raises:
        ValueError: the file cannot be read, or is not the network of the published code.
    """
    state_dict = read_state_dict(source)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.update(guess_model(state_dict))
    model = blank_model(config.model)
    load_torch(model, state_dict)
    save_model(model, config, workdir, source=str(source))
    return config


def changed_fields(before: ConfigDict, after: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Fields of `after` that differ from those of `before`, by their dotted names."""
    changed: dict[str, Any] = {}
    for name, value in after.items():
        if isinstance(value, ConfigDict):
            changed |= changed_fields(before[name], value, f"{prefix}{name}.")
        elif value != before[name]:
            changed[prefix + name] = value
    return changed


def _into_workdir(source: Path, workdir: Path) -> None:
    if CONFIG.value is None:
        raise ValueError("a workdir needs --config, a file of configs/: it says the data set and the frames of a clip")
    config = convert_into_workdir(source, workdir, CONFIG.value)
    model = config.model
    print(f"Found in {source}: depth {model.depth}, width {model.width}, {model.num_classes} classes")
    if model.transform == "rsa":
        print(f"  RSA in blocks {model.positions}: " + ", ".join(f"{k} {v}" for k, v in model.rsa.items()))
    flag = flags.FLAGS["config"]
    fields = config_flags.get_override_values(flag) | changed_fields(CONFIG.value, config)
    command = ["python", "main.py", "--config", config_flags.get_config_filename(flag), "--workdir", str(workdir)]
    command += ["--mode", "eval", *(f"--config.{name}={value}" for name, value in fields.items())]
    print(f"Written to {workdir}. To evaluate it:\n  {shlex.join(command)}")


def _out_of_workdir(workdir: Path, target: Path) -> None:
    model = load_model(workdir, CHECKPOINT.value)
    write_state_dict(target, to_torch(model))
    print(f"{count_parameters(model):,} parameters of the {CHECKPOINT.value} checkpoint of {workdir}: {target}")


def main(argv: list[str]) -> None:
    """Converts in the direction that the arguments say."""
    if len(argv) != 3:
        raise app.UsageError("expected a file of weights and a workdir, or a workdir and a file of weights")
    setup_logging()
    source, target = (Path(argument).expanduser() for argument in argv[1:])
    try:
        if is_weights_file(source):
            _into_workdir(source, target)
        else:
            _out_of_workdir(source, target)
    except (ValueError, ImportError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    app.run(main)
