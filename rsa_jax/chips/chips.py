"""Chips, their peak rates, and their descriptions for the compilers."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from rsa_jax.ops import BATCH_AXIS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip with its vendor's specifications.

    Attributes:
        name: name that selects the chip.
        platform: JAX platform, "tpu" or "cuda".
        memory: bytes available to a program.
        bandwidth: memory bandwidth in bytes per second.
        flops: peak bfloat16 operations per second.
        clock: cycles per second of a TPU.
        description: XLA's description of a GPU.
        options: compiler options.
    """

    name: str
    platform: str
    memory: float
    bandwidth: float
    flops: float
    clock: float | None = None
    description: str | None = None
    options: dict[str, str | bool] = dataclasses.field(default_factory=dict)

    def described(self, field: str) -> int:
        """Value of a numeric field of the description."""
        found = re.search(rf"\b{field}: (\d+)", self.description or "")
        if found is None:
            raise ValueError(f"{self.name}: its description has no {field!r}")
        return int(found.group(1))

    def mesh(self, shape: Sequence[int] = (1,)) -> jax.sharding.Mesh:
        """Mesh over chips that need not exist, with the single axis `BATCH_AXIS`.

        Args:
            shape: topology of the chips, such as (4, 4) for a TPU slice; for GPUs, which share one host, their number.

        Raises:
            RuntimeError: If the compiler is not installed or another process uses it.
        """
        number = math.prod(shape)
        if self.platform == "tpu":
            # The compiler knows only whole hosts of four chips.
            wired = shape if number >= 4 else (2, 2)
            wanted: dict[str, Any] = {"topology_name": f"{self.name}:{'x'.join(map(str, wired))}"}
        else:
            wanted = {"topology_name": f"1x{number}x1", "topology": f"1x{number}x1", "target_config": self.description}
        try:
            topology: Any = topologies.get_topology_desc(platform=self.platform, **wanted)
        except Exception as error:
            extra = "tpu" if self.platform == "tpu" else "cuda13"
            raise RuntimeError(
                f"{self.name}: its compiler does not start (pip install jax[{extra}]; one process at a time): {error}"
            ) from error
        devices = np.array(topology.devices[:number])
        return jax.sharding.Mesh(devices, (BATCH_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


# XLA's descriptions of GPUs, with figures from NVIDIA's data sheets.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } device_description_str: "NVIDIA H100 80GB HBM3"
"""

_A100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 167936
  threads_per_core_limit: 2048 core_count: 108 fpus_per_core: 64 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 2039000000000 l2_cache_size: 41943040
  clock_rate_ghz: 1.41 device_memory_size: 84929347584 shared_memory_per_block_optin: 166912
  cuda_compute_capability { major: 8 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } device_description_str: "NVIDIA A100-SXM4-80GB"
"""

# Autotuning needs a GPU.
_UNTRIED: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}

CHIPS = {
    "v5e": Chip("v5e", "tpu", memory=15.75 * GIB, bandwidth=819e9, flops=197e12, clock=1.5e9),
    "v6e": Chip("v6e", "tpu", memory=31.25 * GIB, bandwidth=1640e9, flops=918e12, clock=1.75e9),
    "h100": Chip(
        "h100",
        "cuda",
        memory=79.1 * GIB,
        bandwidth=3350e9,
        flops=989e12,
        description=_H100,
        options=_UNTRIED,
    ),
    "a100": Chip(
        "a100",
        "cuda",
        memory=79.1 * GIB,
        bandwidth=2039e9,
        flops=312e12,
        description=_A100,
        options=_UNTRIED,
    ),
}
