"""All devices of all hosts as one mesh, over which batches are split."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from rsa_jax import ops


def make_mesh() -> jax.sharding.Mesh:
    """Mesh of all devices of all hosts along one axis, over which batches are split."""
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), (ops.BATCH_AXIS,), axis_types=auto)


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Sharding with the whole array on every device."""
    return jax.NamedSharding(mesh, jax.P())


def split_batch(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Sharding that splits the first axis over the devices."""
    return jax.NamedSharding(mesh, jax.P(ops.BATCH_AXIS))


def to_devices(mesh: jax.sharding.Mesh, batch: dict[str, Any]) -> dict[str, jax.Array]:
    """The global batch, to which this process adds its part. `id` is dropped, since devices hold no text."""
    numbers = {name: value for name, value in batch.items() if name != "id"}
    return jax.make_array_from_process_local_data(split_batch(mesh), numbers)


def on_mesh(mesh: jax.sharding.Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, traced under the mesh: some operations need to know their devices."""

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced
