"""Convert PyTorch weights into a workdir, a workdir into PyTorch weights, or one file of weights into another.

python -m rsa_jax convert WEIGHTS WORKDIR --config configs/ssv1.py [--label_names FILE] [--config.x=y ...]
python -m rsa_jax convert WORKDIR WEIGHTS [--checkpoint best|latest|STEP]
python -m rsa_jax convert WEIGHTS WEIGHTS

WEIGHTS is a file of the released code (.pth.tar, .pth, .pt), .safetensors or .npz. The network is inferred from
parameter names and shapes. The configuration determines the rest, above all the data set. main.py --mode eval
evaluates the workdir.

--label_names sets the class names of the workdir. FILE is a text file whose line i is the name of label i; a .json file
{name: label}, as in Something-Something V2; or a .csv file of names, labelled in sorted order, as in
Something-Something V1 and Jester.
"""

import argparse
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rsa_jax.errors import in_one_line
from rsa_jax.flags import Parser, folder_or_url, parse_with_config
from rsa_jax.logs import setup_logging
from rsa_jax.nn.network import STAGE_SIZES, count_parameters
from rsa_jax.training.models import blank_model, load_model, save_model
from rsa_jax.weights import guess_model, load_torch, read_state_dict, to_torch, write_state_dict
from rsa_jax.weights.state_dict_files import FORMATS


def read_label_names(path: Path) -> list[str]:
    """Class names from a file, in the order of their labels. The module's docstring describes the formats.

    Raises:
        ValueError: If the file is missing or unreadable, names a class twice, or its labels are not 0, 1, 2 and so on.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        labels = json.loads(text) if path.suffix.lower() == ".json" else None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as class names: {error}") from error
    if labels is None:
        names = [line.strip() for line in text.rstrip().splitlines()]
        if "" in names:
            raise ValueError(f"{path}, line {names.index('') + 1}: expected a class name, got an empty line")
        names = sorted(names) if path.suffix.lower() == ".csv" else names
    elif isinstance(labels, dict) and sorted(map(str, labels.values())) == sorted(map(str, range(len(labels)))):
        names = sorted(labels, key=lambda name: int(labels[name]))
    else:
        raise ValueError(f"{path}: expected an object of class names with the labels 0, 1, 2 and so on, each once")
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"{path}: class names occur twice: {', '.join(double)}")
    return names


def convert_into_workdir(
    source: Path, workdir: Path, config: ConfigDict, class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Create a workdir from a file of weights.

    Args:
        source: file of weights.
        workdir: folder to create.
        config: configuration of the run; fields inferred from the weights replace its own.
        class_names: names in the order of the network's classes; None if unknown.

    Returns:
        Fields of `config.model` inferred from the weights, as from `guess_model`.

    Raises:
        ValueError: If the file cannot be read, does not hold a network of the published code, or does not have as many
            classes as there are names, or if the workdir holds a run.
    """
    state_dict = read_state_dict(source)
    guessed = guess_model(state_dict)
    if class_names is not None and len(class_names) != guessed["num_classes"]:
        raise ValueError(
            f"label_names: expected {guessed['num_classes']} names, one per class of {source}, got {len(class_names)}"
        )
    config = config.copy_and_resolve_references()
    config.model.update(guessed)
    model = blank_model(config.model)
    load_torch(model, state_dict)
    save_model(model, config, workdir, source=str(source), class_names=class_names)
    return guessed


def changed_fields(config: ConfigDict, fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields that differ from the configuration, by dotted name."""
    changed: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            changed |= changed_fields(config[name], value, f"{prefix}{name}.")
        elif value != config[name]:
            changed[prefix + name] = value
    return changed


def _into_workdir(args: argparse.Namespace) -> None:
    names = read_label_names(args.label_names) if args.label_names else None
    guessed = convert_into_workdir(args.source, args.target, args.config, names)
    print(f"Found in {args.source}:\n  " + "\n  ".join(_describe(guessed)))
    fields = args.changes | changed_fields(args.config, {"model": guessed})
    # A field that is None needs no flag: None is its default, and no flag can set it.
    overrides = [f"--config.{name}={value}" for name, value in fields.items() if value is not None]
    command = ["python", "main.py", "--config", args.config_file, "--workdir", str(args.target), "--mode", "eval"]
    print(f"Written to {args.target}. To evaluate it:\n  {shlex.join([*command, *overrides])}")


def _describe(guessed: dict[str, Any]) -> Iterator[str]:
    blocks = guessed["stage_sizes"] or STAGE_SIZES[guessed["depth"]]
    kind = "bottlenecks" if guessed["depth"] >= 50 else "basic blocks"
    yield f"{kind} {blocks} (depth {guessed['depth']}), width {guessed['width']}, {guessed['num_classes']} classes"
    if guessed["transform"] == "rsa":
        settings = dict(guessed["rsa"])
        settings["latent_dim"] = settings["latent_dim"] or "channels per query"
        yield f"RSA in blocks {guessed['transform_blocks']}: " + ", ".join(
            f"{name} {it}" for name, it in settings.items()
        )
    else:
        yield "no RSA"


def _out_of_workdir(args: argparse.Namespace) -> None:
    checkpoint = args.checkpoint or "best"
    model = load_model(args.source, checkpoint)
    write_state_dict(args.target, to_torch(model))
    print(f"{count_parameters(model):,} parameters of the {checkpoint} checkpoint of {args.source}: {args.target}")


def _between_files(args: argparse.Namespace) -> None:
    write_state_dict(args.target, read_state_dict(args.source))


def _parse(argv: Sequence[str] | None) -> tuple[Callable[[argparse.Namespace], None], argparse.Namespace]:
    """The requested conversion and the arguments, which are checked to be of use in it."""
    parser = Parser("convert", __doc__)
    add = parser.add_argument
    add("source", type=folder_or_url, metavar="SOURCE", help=f"file of weights ({', '.join(FORMATS)}) or workdir")
    add("target", type=folder_or_url, metavar="TARGET", help="file of weights or workdir to write")
    add("--checkpoint", help="of a workdir that is converted: best, latest or a step (best)")
    add("--label_names", type=_path, metavar="FILE", help="class names of a new workdir: .txt, .json or .csv")
    args = parse_with_config(parser, argv, required=False)
    if args.source.is_dir():
        conversion, needed = _out_of_workdir, {"checkpoint"}
    elif args.target.suffix.lower() in FORMATS:
        conversion, needed = _between_files, set()
    else:
        conversion, needed = _into_workdir, {"config", "label_names"}
        if args.config is None:
            parser.error("--config: required to create a workdir; it sets the data set and the frames per clip")
    for name in ("checkpoint", "config", "label_names"):
        if getattr(args, name) is not None and name not in needed:
            parser.error(f"--{name}: does not apply to the conversion of {args.source} into {args.target}")
    return conversion, args


def _path(text: str) -> Path:
    return Path(text).expanduser()


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a file of weights into a workdir, a workdir into a file, or one file into another."""
    convert, args = _parse(argv)
    setup_logging()
    with in_one_line():
        convert(args)


if __name__ == "__main__":
    main()
