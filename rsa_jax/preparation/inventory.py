"""Inventory of a data set: clips listed, missing and left out because they could not be decoded."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass
class SplitInventory:
    """Inventory of one split.

    Attributes:
        official: published number of clips; None if there is none.
        listed: number of clips that the annotations list.
        missing: ids of listed clips without a video.
        left_out: id and reason of clips that could not be decoded.
        stored: number of clips in the data set; None before it is prepared.
        empty_classes: names of classes without an available clip.
    """

    official: int | None
    listed: int
    missing: list[str]
    left_out: list[dict[str, str]]
    stored: int | None
    empty_classes: list[str]


@dataclasses.dataclass
class Inventory:
    """Inventory of a data set.

    Attributes:
        splits: inventory of each split, by name.
        extra: paths that are not used, with the reason unless they are videos that no annotation names.
        archives: archives that were not opened.
    """

    splits: dict[str, SplitInventory]
    extra: list[str]
    archives: list[str]

    def problems(self) -> list[str]:
        """Differences from the complete official data set, one message each."""
        found = []
        for name, split in self.splits.items():
            if split.official not in (None, split.listed):
                found.append(
                    f"{name}: the annotations list {split.listed} clips, officially there are {split.official}"
                )
            if split.missing:
                found.append(f"{name}: the videos of {len(split.missing)} of {split.listed} clips are missing")
        return found

    def text(self, most: int = 10) -> str:
        """The inventory as text, with at most `most` entries per list."""
        lines = []
        for name, split in self.splits.items():
            official = "" if split.official is None else f", officially {split.official}"
            stored = "" if split.stored is None else f"; {split.stored} stored"
            lines.append(f"{name}: {split.listed} clips listed{official}; {len(split.missing)} missing{stored}")
            lines += _listing("classes without a clip", split.empty_classes, most)
            lines += _listing("missing", split.missing, most)
            lines += _listing("left out", [clip["reason"] for clip in split.left_out], most)
        lines += _listing("not used", self.extra, most)
        lines += _listing("archives that were not opened", self.archives, most)
        # File names need not be valid UTF-8.
        return "\n".join(lines).encode(errors="backslashreplace").decode()


def _listing(title: str, entries: Sequence[str], most: int) -> list[str]:
    if not entries:
        return []
    more = [f"    ... and {len(entries) - most} more"] if len(entries) > most else []
    return [f"  {title}: {len(entries)}", *(f"    {entry}" for entry in entries[:most]), *more]
