"""Compiler estimates of a program's cost."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax

from rsa_jax.chips.chips import Chip
from rsa_jax.chips.hlo import Collective, Operation, Program

# Number of most expensive operations that are kept.
OPERATIONS = 10


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a program on one chip.

    Attributes:
        temporary: bytes besides arguments and results.
        total: bytes including arguments and results.
        seconds: the TPU compiler's estimate; for a GPU, the lower bound from the memory bandwidth.
        traffic: bytes that operations read and write, outside of fusions.
        flops: the compiler's count, which excludes library calls.
        compilation: compilation time in seconds.
        collectives: collectives between chips.
        operations: most expensive operations.
    """

    temporary: int
    total: int
    seconds: float
    traffic: int
    flops: float
    compilation: float
    collectives: Sequence[Collective]
    operations: Sequence[Operation]


def compile_for(chip: Chip, lowered: jax.stages.Lowered) -> Cost:
    """Compiles a program for a chip that need not exist.

    Args:
        chip: chip of the mesh that the program was lowered for.
        lowered: lowered program.

    Raises:
        jax.errors.JaxRuntimeError: If compilation fails, for example because the chip has too little memory.
    """
    start = time.perf_counter()
    compiled = lowered.compile(compiler_options=chip.options)
    compilation = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    program = Program(compiled.as_text() or "")
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    traffic = program.traffic()
    seconds = program.cycles() / chip.clock if chip.clock else traffic / chip.bandwidth
    flops = (compiled.cost_analysis() or {}).get("flops", 0.0)
    most = program.largest(OPERATIONS, by="cycles" if chip.clock else "traffic")
    return Cost(
        memory.temp_size_in_bytes,
        memory.temp_size_in_bytes + arguments,
        seconds,
        traffic,
        flops,
        compilation,
        program.collectives(),
        most,
    )
