"""Packages that only parts of the project need."""

# Packages of the extra "train" of pyproject.toml, by the names that they are imported by.
TRAIN = (
    "absl",
    "array_record",
    "av",
    "clu",
    "jinja2",
    "matplotlib",
    "optax",
    "orbax",
    "PIL",
    "scipy",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "tqdm",
)


class MissingPackageError(ImportError):
    """A package of an extra that is not installed."""


def missing(error: ModuleNotFoundError, extra: str) -> MissingPackageError:
    """An ImportError that names the extra of pyproject.toml which brings the missing package."""
    return MissingPackageError(
        f"{error.name} is not installed: pip install '.[{extra}]' in a clone of rsa-jax", name=error.name
    )
