"""Diving48: competitive dives, told apart by take-off, somersaults, twists and position."""

import pathlib
from collections.abc import Sequence

from rsa_jax.preparation.datasets.official import Annotations, Listed, OfficialBuilder, OfficialConfig, Place, read_json
from rsa_jax.preparation.store import PreparationError


class Diving48(OfficialBuilder):
    """Trimmed MP4 files. Version 2 of the labels (2020) corrects many errors of version 1."""

    name = "diving48"
    configs = (OfficialConfig(name="v2"), OfficialConfig(name="v1"))
    num_classes = 48

    @property
    def official_sizes(self) -> dict[str, int]:  # type: ignore[override]
        """Published number of clips per split, for this version of the labels."""
        return {
            "v1": {"train": 15_943, "validation": 2_096},
            "v2": {"train": 15_027, "validation": 1_970},
        }[self.builder_config.name]

    def read_class_names(self, annotations: Annotations) -> list[str]:
        """Class names: the four parts of each vocabulary entry, joined."""
        path = annotations.get("Diving48_vocab.json")
        return [" ".join(parts) for parts in read_json(path)]

    def read_clips(self, annotations: Annotations, class_names: Sequence[str]) -> dict[str, list[Listed]]:
        """Clips of the official training list, and of the test list as validation."""
        version = "_V2" if self.builder_config.name == "v2" else ""
        files = {"train": f"Diving48{version}_train.json", "validation": f"Diving48{version}_test.json"}
        return {split: self._read_records(annotations.get(name)) for split, name in files.items()}

    def _read_records(self, path: pathlib.Path) -> list[Listed]:
        """Clips from records {vid_name, label, start_frame, end_frame}. The files are already trimmed."""
        clips = []
        for number, record in enumerate(read_json(path), 1):
            try:
                name, label = record["vid_name"], int(record["label"])
            except (KeyError, TypeError, ValueError):
                raise PreparationError(
                    f"{path}, entry {number}: expected 'vid_name' and 'label', got {record!r}."
                ) from None
            clips.append(Listed(name, label, (Place(name),)))
        return clips
