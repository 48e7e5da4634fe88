"""Packages that only parts of the project need."""


def missing(error: ModuleNotFoundError, extra: str) -> ImportError:
    """An ImportError that names the extra of pyproject.toml which brings the missing package."""
    return ImportError(f"{error.name} is not installed: pip install 'rsa-jax[{extra}]'", name=error.name)
