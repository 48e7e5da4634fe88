"""FineGym: elements of gymnastics in broadcasts of competitions, in 99 or 288 classes."""

import collections
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from rsa_jax.data.datasets.official import (
    Annotations,
    Listed,
    OfficialBuilder,
    OfficialConfig,
    Place,
    bad_line,
    read_json,
    read_lines,
)

# An element's id: that of the YouTube video, which may hold - and _, the event's and the element's seconds.
_ELEMENT = re.compile(r"(?P<video>.+)_(?P<event>E_\d{6}_\d{6})_(?P<action>A_\d{4}_\d{4})")
_CLASS = re.compile(r"Clabel:\s*(\d+)\s*;.*?(Glabel:\s*\d+)\s*;\s*(.+)")


def places(element: str, events: dict[str, Any]) -> tuple[Place, ...]:
    """Where an element may lie: a file of its own, the file of its event, or the whole video.

    Args:
      element: its id.
      events: the official times by video, event and element, in seconds, the elements' from the start of the event.

    Returns:
      Without times only the first place.
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
    """Videos of YouTube, whole or cut to events or elements; many have vanished, others have them."""

    name = "finegym"
    configs = (OfficialConfig(name="gym99"), OfficialConfig(name="gym288"))

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """99 or 288."""
        return int(self.builder_config.name.removeprefix("gym"))

    @property
    def official_sizes(self) -> dict[str, int]:  # type: ignore[override]
        """Of version 1.1 of the training list, or of version 1.0 if that is there."""
        path = self._annotations.find(*self._train_lists)
        old = path is not None and path.name.endswith("v1.0.txt")
        return {
            "gym99": {"train": 20_484 if old else 26_320, "validation": 8_521},
            "gym288": {"train": 22_671 if old else 29_334, "validation": 9_646},
        }[self.builder_config.name]

    @property
    def _train_lists(self) -> tuple[str, str]:
        """Names of the two versions."""
        prefix = f"{self.builder_config.name}_train_element"
        return f"{prefix}_v1.1.txt", f"{prefix}_v1.0.txt"

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Of lines `Clabel: 0; set: 1; Glabel: 1; (VT) round-off, ...`. A name that comes twice gets its Glabel."""
        path = annotations.get(f"{self.builder_config.name}_categories.txt")
        classes = []
        for number, line in enumerate(read_lines(path)):
            match = _CLASS.fullmatch(line)
            if match is None or int(match[1]) != number:
                raise bad_line(path, number + 1, line, f"'Clabel: {number}; set: ...; Glabel: ...; class name'")
            classes.append((match[3], " ".join(match[2].split())))
        counts = collections.Counter(name for name, _ in classes)
        return [name if counts[name] == 1 else f"{name} ({global_label})" for name, global_label in classes]

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Of lines `id class`."""
        times = annotations.find("finegym_annotation_info_v1.1.json", "finegym_annotation_info_v1.0.json")
        events = read_json(times) if times else {}
        files = {
            "train": annotations.get(*self._train_lists),
            "validation": annotations.get(f"{self.builder_config.name}_val_element.txt"),
        }
        return {split: self._read_list_of_elements(path, events) for split, path in files.items()}

    def _read_list_of_elements(self, path: pathlib.Path, events: dict[str, Any]) -> list[Listed]:
        clips = []
        for number, line in enumerate(read_lines(path), 1):
            element, _, label = line.rpartition(" ")
            where = places(element, events)
            if not (where and label.isdecimal()):
                raise bad_line(path, number, line, "'VIDEO_E_000000_000000_A_0000_0000 class'")
            clips.append(Listed(element, int(label), where))
        return clips
