"""Opening and description of a prepared data set, by the `data` section of a configuration."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from rsa_jax.preparation.datasets import BUILDERS, make_builder, make_config
from rsa_jax.preparation.store import PreparationError, data_path, open_prepared, prepare


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Description of a prepared data set.

    Attributes:
        name: as in the configuration.
        class_names: in the order of the class ids.
        flip_pairs: classes that a flip changes, as `ClipBuilder.flip_pairs`.
        num_examples: clips per split.
        frame_size: (height, width) of the stored frames in pixels.
        provenance: source, counts, quality, versions, hash of the label map, clips left out.
    """

    name: str
    class_names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, ...], ...]
    num_examples: dict[str, int]
    frame_size: tuple[int, int]
    provenance: dict[str, Any]

    def split_size(self, split: str) -> int:
        """Number of clips in a split.

        Raises:
            ValueError: If there is no such split.
        """
        if split not in self.num_examples:
            known = ", ".join(sorted(self.num_examples))
            raise ValueError(f"Data set {self.name!r} has no split {split!r}; it has {known}.")
        return self.num_examples[split]


def open_dataset(data: ConfigDict) -> tfds.core.DatasetBuilder:
    """Opens the data set of `config.data`. Draws `motion` on first use.

    Raises:
        PreparationError: If it was not prepared (the message gives the command) or is incomplete.
    """
    if not data.name:
        raise PreparationError(f"config.data.name is not set; expected one of {', '.join(BUILDERS)}.")
    path = data_path(data.name, data.data_dir)
    builder = data.name.partition("/")[0]
    if not path.is_dir() and builder == "motion":
        config = make_config(path)
        print(f"Generating data set {data.name!r} in {path} (first use only) ...", flush=True)
        prepare(lambda: make_builder(path, config), path)
    elif not path.is_dir():
        known = "" if builder in BUILDERS else f" (it is none of {', '.join(BUILDERS)})"
        raise PreparationError(
            f"Data set {data.name!r}{known} is not in {data.data_dir}. Prepare it with\n"
            f"  python -m rsa_jax prepare {data.name} --source DIR --data_dir {data.data_dir}"
        )
    return open_prepared(path)


def load_info(data: ConfigDict, *splits: str) -> DatasetInfo:
    """Description of the data set of `config.data`. Draws `motion` on first use.

    Args:
        data: `data` section of the configuration.
        *splits: splits that the data set must have.

    Raises:
        PreparationError: If it was not prepared (the message gives the command) or is incomplete.
        ValueError: If it lacks one of the splits.
    """
    info = open_dataset(data).info
    metadata = info.metadata
    # Data sets prepared by version 0.1 have the flip pairs under another name.
    flip_pairs = metadata["flip_pairs"] if "flip_pairs" in metadata else metadata["directional"]
    result = DatasetInfo(
        name=data.name,
        class_names=tuple(info.features["label"].names),
        flip_pairs=tuple(tuple(group) for group in flip_pairs),
        num_examples={name: split.num_examples for name, split in info.splits.items()},
        frame_size=tuple(metadata["provenance"]["frame_size"]),
        provenance=metadata["provenance"],
    )
    for split in splits:
        result.split_size(split)
    return result
