"""Kinetics-400: ten-second clips of human actions from YouTube, the usual pre-training data."""

import csv
import io
import pathlib
from collections.abc import Sequence
from types import MappingProxyType

from rsa_jax.preparation.datasets.lists import read_text
from rsa_jax.preparation.datasets.official import Annotations, Listed, OfficialBuilder, Place
from rsa_jax.preparation.store import PreparationError

_TRAIN = ("kinetics-400_train.csv", "train.csv", "kinetics_train.csv")
_VALIDATION = ("kinetics-400_val.csv", "val.csv", "validate.csv", "kinetics_val.csv")


def read_table(path: pathlib.Path) -> list[tuple[str, str]]:
    """(class name, video name) of each row of a table with columns label, youtube_id, time_start and time_end."""
    text = read_text(path)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table, rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter), []
    for row in table:
        try:
            start, end = int(row["time_start"]), int(row["time_end"])
            rows.append((row["label"], f"{row['youtube_id']}_{start:06d}_{end:06d}"))
        except (KeyError, TypeError, ValueError):
            expected = "the columns label, youtube_id, time_start and time_end"
            raise PreparationError(f"{path}, line {table.line_num}: expected {expected}, got {row!r}.") from None
    return rows


class Kinetics400(OfficialBuilder):
    """Files named YOUTUBE-ID_START_END (six digits of seconds each), in any folders.

    Below a folder named replacement, they replace the corrupt ones of the same name.
    """

    name = "kinetics400"
    num_classes = 400
    official_sizes = MappingProxyType({"train": 246_534, "validation": 19_906})

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Sorted class names of the training table."""
        return sorted({name for name, _ in read_table(annotations.get(*_TRAIN))})

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Clips of the two splits with published labels."""
        ids = {name: number for number, name in enumerate(class_names)}
        files = {"train": annotations.get(*_TRAIN), "validation": annotations.get(*_VALIDATION)}
        tables = {split: read_table(path) for split, path in files.items()}
        for split, rows in tables.items():
            unknown = sorted({name for name, _ in rows} - ids.keys())
            if unknown:
                raise PreparationError(f"{files[split]}: classes that {files['train']} does not have: {unknown[:5]}.")
        return {
            split: [Listed(video, ids[name], (Place(video),)) for name, video in rows] for split, rows in tables.items()
        }
