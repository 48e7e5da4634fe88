"""FineGym: gymnastics elements from broadcast competitions, in 99 or 288 classes."""

import collections
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from rsa_jax.preparation.datasets.lists import numbered_lines
from rsa_jax.preparation.datasets.official import (
    Annotations,
    Listed,
    OfficialBuilder,
    OfficialConfig,
    Place,
    bad_line,
    read_json,
)

# Element id: the YouTube id, which may contain - and _, then the seconds of the event and of the element.
_ELEMENT = re.compile(r"(?P<video>.+)_(?P<event>E_\d{6}_\d{6})_(?P<action>A_\d{4}_\d{4})")
_CLASS = re.compile(r"Clabel:\s*(\d+)\s*;.*?(Glabel:\s*\d+)\s*;\s*(.+)")


def places(element: str, events: dict[str, Any]) -> tuple[Place, ...]:
    """Possible places of an element: its own file, the file of its event, or the whole video.

    Args:
        element: element id.
        events: official times in seconds, by video, event and element. Element times count from the start of the event.

    Returns:
        The three places in this order; only the first if there are no times.
    """
    match = _ELEMENT.fullmatch(element)
    if match is None:
        return ()
    event = events.get(match["video"], {}).get(match["event"])
    action = ((event or {}).get("segments") or {}).get(match["action"])
    if action is None:
        return (Place(element),)
    begin = event["timestamps"][0][0]
    start, end = action["timestamps"][0][0], action["timestamps"][-1][1]  # a vault has several stages
    return (
        Place(element),
        Place(f"{match['video']}_{match['event']}", (start, end)),
        Place(match["video"], (begin + start, begin + end)),
    )


class Finegym(OfficialBuilder):
    """YouTube videos, whole or cut to events or elements. Many are gone from YouTube, but copies exist elsewhere."""

    name = "finegym"
    configs = (OfficialConfig(name="gym99"), OfficialConfig(name="gym288"))

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """Number of classes, 99 or 288."""
        return int(self.builder_config.name.removeprefix("gym"))

    @property
    def official_sizes(self) -> dict[str, int]:  # type: ignore[override]
        """Published number of clips per split, for version 1.1 of the training list or for 1.0 if only that exists."""
        path = self._annotations.find(*self._train_lists)
        old = path is not None and path.name.endswith("v1.0.txt")
        return {
            "gym99": {"train": 20_484 if old else 26_320, "validation": 8_521},
            "gym288": {"train": 22_671 if old else 29_334, "validation": 9_646},
        }[self.builder_config.name]

    @property
    def _train_lists(self) -> tuple[str, str]:
        """File names of the training list, versions 1.1 and 1.0."""
        prefix = f"{self.builder_config.name}_train_element"
        return f"{prefix}_v1.1.txt", f"{prefix}_v1.0.txt"

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Names from lines `Clabel: 0; set: 1; Glabel: 1; (VT) round-off, ...`. Repeated names get the Glabel."""
        path = annotations.get(f"{self.builder_config.name}_categories.txt")
        classes: list[tuple[str, str]] = []
        for number, line in numbered_lines(path):
            match, label = _CLASS.fullmatch(line), len(classes)
            if match is None or int(match[1]) != label:
                raise bad_line(path, number, line, f"'Clabel: {label}; set: ...; Glabel: ...; class name'")
            classes.append((match[3], " ".join(match[2].split())))
        counts = collections.Counter(name for name, _ in classes)
        return [name if counts[name] == 1 else f"{name} ({global_label})" for name, global_label in classes]

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Clips from lines `id class`."""
        times = annotations.find("finegym_annotation_info_v1.1.json", "finegym_annotation_info_v1.0.json")
        events = read_json(times) if times else {}
        files = {
            "train": annotations.get(*self._train_lists),
            "validation": annotations.get(f"{self.builder_config.name}_val_element.txt"),
        }
        return {split: self._read_list_of_elements(path, events) for split, path in files.items()}

    def _read_list_of_elements(self, path: pathlib.Path, events: dict[str, Any]) -> list[Listed]:
        clips = []
        for number, line in numbered_lines(path):
            element, *label = line.split()
            where = places(element, events)
            if not (where and len(label) == 1 and label[0].isdecimal()):
                raise bad_line(path, number, line, "'VIDEO_E_000000_000000_A_0000_0000 class'")
            clips.append(Listed(element, int(label[0]), where))
        return clips
