"""A small data set for the tests of the input pipeline."""

from ml_collections import ConfigDict


def changed(data: ConfigDict, **fields: object) -> ConfigDict:
    """A copy with other values of some fields."""
    data = data.copy_and_resolve_references()
    data.update(fields)
    return data
