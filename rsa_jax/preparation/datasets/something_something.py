"""Something-Something V1 and V2, and Jester: the data sets of 20BN, now Qualcomm."""

import pathlib
from collections.abc import Sequence
from types import MappingProxyType

from rsa_jax.preparation.datasets.lists import numbered_lines, read_lines
from rsa_jax.preparation.datasets.official import (
    Annotations,
    Listed,
    OfficialBuilder,
    Place,
    bad_line,
    read_json,
)
from rsa_jax.preparation.store import PreparationError

MIRRORED_ACTIONS = (
    ("Pulling something from left to right", "Pulling something from right to left"),
    ("Pushing something from left to right", "Pushing something from right to left"),
    ("Turning the camera left while filming something", "Turning the camera right while filming something"),
)


def _listed(path: pathlib.Path, number: int, video: str, name: str, class_names: Sequence[str]) -> Listed:
    if name not in class_names:
        raise PreparationError(f"{path}, entry {number}: no such class: {name!r}.")
    return Listed(video, class_names.index(name), (Place(video),))


def read_table(path: pathlib.Path, class_names: Sequence[str]) -> list[Listed]:
    """Clips from a file of lines `id;class name`."""
    clips = []
    for number, line in numbered_lines(path):
        video, separator, name = line.partition(";")
        if not separator:
            raise bad_line(path, number, line, "'id;class name'")
        clips.append(_listed(path, number, video, name, class_names))
    return clips


class _Tables(OfficialBuilder):
    """Annotations in tables of lines `id;class name`. Class ids follow the sorted names."""

    prefix: str  # of the official file names

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Class names: the sorted lines of the label file."""
        return sorted(read_lines(annotations.get(f"{self.prefix}-labels.csv", "labels.csv")))

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Clips of the two splits with published labels."""
        files = {split: annotations.get(f"{self.prefix}-{split}.csv", f"{split}.csv") for split in self.official_sizes}
        return {split: read_table(path, class_names) for split, path in files.items()}

    def unlabelled(self, annotations: Annotations) -> set[str]:
        """Video names of the test split."""
        path = annotations.find(f"{self.prefix}-test.csv", "test.csv")
        return {line.partition(";")[0] for line in read_lines(path)} if path else set()


class SomethingSomethingV1(_Tables):
    """108,499 clips of 174 actions with everyday objects, as folders of JPEG frames (12 per second)."""

    name = "something_something_v1"
    num_classes = 174
    official_sizes = MappingProxyType({"train": 86_017, "validation": 11_522})
    mirror_names = MIRRORED_ACTIONS
    prefix = "something-something-v1"


class Jester(_Tables):
    """148,092 clips of 27 hand gestures, as folders of JPEG frames (12 per second)."""

    name = "jester"
    num_classes = 27
    official_sizes = MappingProxyType({"train": 118_562, "validation": 14_787})
    mirror_names = (
        ("Swiping Left", "Swiping Right"),
        ("Sliding Two Fingers Left", "Sliding Two Fingers Right"),
        ("Turning Hand Clockwise", "Turning Hand Counterclockwise"),
    )
    prefix = "jester-v1"


class SomethingSomethingV2(OfficialBuilder):
    """220,847 clips of 174 actions with everyday objects, as WebM files (VP9, 12 frames per second).

    With test-answers.csv, which newer releases include, there is also a "test" split.
    """

    name = "something_something_v2"
    num_classes = 174
    official_sizes = MappingProxyType({"train": 168_913, "validation": 24_777, "test": 27_157})
    mirror_names = MIRRORED_ACTIONS

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Class names in the order of the official ids, which is the sorted order."""
        path = annotations.get("labels.json", "something-something-v2-labels.json")
        ids = {name: int(number) for name, number in read_json(path).items()}
        names = sorted(ids, key=ids.__getitem__)
        if [ids[name] for name in names] != list(range(len(names))):
            raise PreparationError(f"{path}: expected the class ids 0 to {len(names) - 1}, each once.")
        return names

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Clips of train and validation, and of test if its answers are available."""
        clips = {
            split: self._read_records(
                annotations.get(f"{split}.json", f"something-something-v2-{split}.json"), class_names
            )
            for split in ("train", "validation")
        }
        answers = annotations.find("test-answers.csv", "something-something-v2-test-answers.csv")
        return clips | ({"test": read_table(answers, class_names)} if answers else {})

    def unlabelled(self, annotations: Annotations) -> set[str]:
        """Video names of the test split."""
        path = annotations.find("test.json", "something-something-v2-test.json")
        return {str(record["id"]) for record in read_json(path)} if path else set()

    def _read_records(self, path: pathlib.Path, class_names: Sequence[str]) -> list[Listed]:
        """Clips from records {"id", "template", ...}; the template is the class name with brackets."""
        clips = []
        for number, record in enumerate(read_json(path), 1):
            try:
                name = record["template"].replace("[", "").replace("]", "")
                clips.append(_listed(path, number, str(record["id"]), name, class_names))
            except (KeyError, TypeError, AttributeError):
                raise PreparationError(
                    f"{path}, entry {number}: expected 'id' and 'template', got {record!r}."
                ) from None
        return clips
