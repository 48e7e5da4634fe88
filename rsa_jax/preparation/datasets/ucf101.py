"""UCF101: 13,320 clips of 101 actions."""

import pathlib
from collections.abc import Sequence

from rsa_jax.preparation.datasets.lists import numbered_lines
from rsa_jax.preparation.datasets.official import (
    Annotations,
    Listed,
    OfficialBuilder,
    OfficialConfig,
    Place,
    bad_line,
)


class Ucf101(OfficialBuilder):
    """AVI files with three official train/test splits. The test clips are the validation split."""

    name = "ucf101"
    configs = tuple(OfficialConfig(name=f"split{i}") for i in (1, 2, 3))
    num_classes = 101

    @property
    def official_sizes(self) -> dict[str, int]:  # type: ignore[override]
        """Published number of training and validation clips, for this official split."""
        return {
            "split1": {"train": 9_537, "validation": 3_783},
            "split2": {"train": 9_586, "validation": 3_734},
            "split3": {"train": 9_624, "validation": 3_696},
        }[self.builder_config.name]

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Class names from lines `1 ApplyEyeMakeup`, which count from 1."""
        path = annotations.get("classInd.txt")
        names: list[str] = []
        for number, line in numbered_lines(path):
            count, *name = line.split(maxsplit=1)
            if count != str(len(names) + 1) or not name:
                raise bad_line(path, number, line, f"'{len(names) + 1} ClassName'")
            names += name
        return names

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Clips from lines `ClassName/clip.avi`. The training list appends the class id, counted from 1."""
        number = self.builder_config.name.removeprefix("split")
        files = {"train": f"trainlist0{number}.txt", "validation": f"testlist0{number}.txt"}
        return {split: _read(annotations.get(name), class_names) for split, name in files.items()}


def _read(path: pathlib.Path, class_names: Sequence[str]) -> list[Listed]:
    clips = []
    for number, line in numbered_lines(path):
        file, *labels = line.split(maxsplit=1)
        name, _, video = file.partition("/")
        if name not in class_names or labels not in ([], [str(class_names.index(name) + 1)]):
            raise bad_line(path, number, line, "'ClassName/clip.avi', and the number of that class if any")
        stem = pathlib.PurePosixPath(video).stem
        clips.append(Listed(stem, class_names.index(name), (Place(stem),)))
    return clips
