"""Every data set that can be prepared, by name."""

import dataclasses
import pathlib
from typing import Any

from rsa_jax.preparation.builder import ClipBuilder, ClipConfig
from rsa_jax.preparation.datasets.diving48 import Diving48
from rsa_jax.preparation.datasets.finegym import Finegym
from rsa_jax.preparation.datasets.kinetics import Kinetics400
from rsa_jax.preparation.datasets.motion import Motion
from rsa_jax.preparation.datasets.something_something import Jester, SomethingSomethingV1, SomethingSomethingV2
from rsa_jax.preparation.datasets.ucf101 import Ucf101
from rsa_jax.preparation.datasets.video_folder import VideoFolder, VideoFolderConfig
from rsa_jax.preparation.store import PreparationError

BUILDERS: dict[str, type[ClipBuilder]] = {
    builder.name: builder
    for builder in (
        *(SomethingSomethingV1, SomethingSomethingV2, Diving48, Finegym, Kinetics400, Ucf101, Jester),
        *(VideoFolder, Motion),
    )
}


def make_config(path: pathlib.Path, **options: Any) -> ClipConfig:
    """Configuration of the data set in `path` = DATA_DIR/BUILDER/CONFIG/VERSION.

    Args:
        path: from `rsa_jax.preparation.store.data_path`.
        **options: fields of the configuration.

    Raises:
        PreparationError: If there is no such data set, or it has no such option.
    """
    name, config_name = path.parts[-3], path.parent.name
    if name not in BUILDERS:
        raise PreparationError(f"Unknown data set {name!r}; there are {', '.join(BUILDERS)}.")
    configs = {config.name: config for config in BUILDERS[name].configs}
    config = VideoFolderConfig(name=config_name) if BUILDERS[name] is VideoFolder else configs.get(config_name)
    if config is None:
        known = ", ".join(f"{name}/{config}" for config in configs)
        raise PreparationError(f"Unknown data set '{name}/{config_name}'; there are {known}.")
    unknown = options.keys() - {field.name for field in dataclasses.fields(config)}
    if unknown:
        raise PreparationError(f"{name} has no option {', '.join(f'--{option}' for option in sorted(unknown))}.")
    return dataclasses.replace(config, **options)


def make_builder(path: pathlib.Path, config: ClipConfig) -> ClipBuilder:
    """Builder of the data set in `path`, with a configuration from `make_config`."""
    return BUILDERS[path.parts[-3]](data_dir=path.parents[2], config=config)
