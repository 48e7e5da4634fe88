"""The data set of a run, the same in every process."""

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from rsa_jax.input_pipeline import dataset_info
from rsa_jax.input_pipeline.dataset_info import DatasetInfo


def load_info(data: ConfigDict, *splits: str) -> DatasetInfo:
    """Description of the data set. Process 0 reads it first: it may have to prepare it on a shared disk.

    Args:
        data: `data` section of the configuration.
        splits: splits that the data set must have.
    """
    if jax.process_count() > 1:
        if jax.process_index() == 0:
            dataset_info.load_info(data, *splits)
        multihost_utils.sync_global_devices("data set")
    return dataset_info.load_info(data, *splits)


def with_classes(config: ConfigDict, info: DatasetInfo) -> ConfigDict:
    """The configuration with `model.num_classes` set to that of the data set if it was None.

    Raises:
        ValueError: the data set has more classes than the network.
    """
    config, classes = config.copy_and_resolve_references(), len(info.class_names)
    if config.model.num_classes is None:
        config.model.num_classes = classes
    if config.model.num_classes < classes:
        raise ValueError(f"model.num_classes: {info.name} has {classes} classes, got {config.model.num_classes}")
    return config
