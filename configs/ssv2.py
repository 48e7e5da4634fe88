"""Something-Something V2 as published, 8 frames."""

from ml_collections import ConfigDict

from configs import ssv1


def get_config() -> ConfigDict:
    """The V1 recipe on the V2 clips."""
    config = ssv1.get_config()
    config.data.name = "something_something_v2"
    return config
