"""Compiles the GPU kernels of RSA for a card that need not be present, and reports their multiprocessor use.

python -m benchmarks.gpu_kernels --chip h100|a100

For each layer of RSANet-R50, and for more demanding cases: registers per thread and bytes spilled to memory, from
NVIDIA's assembler (`ptxas`, in the CUDA packages); shared memory; and the occupancy, which is the fraction of a
multiprocessor's warps that fit.
"""

import argparse
import dataclasses
import functools
import json
import math
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import nvidia.cu13

from benchmarks.accelerators import CLIPS, FRAMES, compilers
from benchmarks.measure import RESULTS, table
from benchmarks.transform import STAGES
from rsa_jax import ops
from rsa_jax.chips import CHIPS, Chip
from rsa_jax.ops.equations import RSAWeights


@dataclasses.dataclass(frozen=True)
class Case:
    """A transform: side of the feature map, queries, channels per query, D, window, dtype."""

    side: int
    queries: int
    channels: int
    latent: int
    kernel_size: tuple[int, int, int] = (5, 7, 7)
    dtype: str = "bfloat16"


# The layers of RSANet-R50, then cases that demand more of a multiprocessor.
CASES = {f"{side}² x {channels}": Case(side, 8, channels // 8, channels // 8) for side, channels, _ in STAGES} | {
    "7² x 512, float32": Case(7, 8, 64, 64, dtype="float32"),
    "7² x 512, 4 queries, float32": Case(7, 4, 128, 128, dtype="float32"),
    "7² x 512, 2 queries": Case(7, 2, 256, 256),
    "7² x 512, window 5 x 9 x 9, float32": Case(7, 8, 64, 64, (5, 9, 9), "float32"),
    "7² x 512, window 5 x 11 x 11": Case(7, 8, 64, 64, (5, 11, 11)),
    "14² x 256, D = 128, float32": Case(14, 8, 32, 128, (3, 3, 3), "float32"),
    "14² x 1024, 64 queries": Case(14, 64, 16, 16),
    "3² x 64, window 15 x 15 x 15": Case(3, 8, 8, 8, (15, 15, 15)),
}
PTXAS = Path(next(iter(nvidia.cu13.__path__))) / "bin" / "ptxas"
LAUNCH = re.compile(r"(rsa_\w+) grid: \[(\d+), (\d+), \d+\] threads: \[(\d+), .*shared_memory: (\d+) bytes")
REGISTERS, SPILLED = re.compile(r"Used (\d+) registers"), re.compile(r"(\d+) bytes spill stores")
# Registers per multiprocessor; they are allocated in units of 8 per thread.
ALL_REGISTERS, UNIT = 65536, 8


def lower(case: Case, chip: Chip) -> jax.stages.Lowered:
    """The transform with its gradients."""
    side, channels, latent, positions = case.side, case.channels, case.latent, math.prod(case.kernel_size)
    sharding = jax.NamedSharding(chip.mesh(), jax.P())

    def array(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, case.dtype, sharding=sharding)

    weights = RSAWeights(
        array(positions, latent),
        array(positions, channels, latent),
        array(channels, latent),
        array(positions, channels),
        array(channels, channels),
    )
    one = array(CLIPS, FRAMES, side, side, channels)
    transform = functools.partial(ops.rsa, kernel_size=case.kernel_size, implementation="gpu")

    def both(y_grad: jax.Array, *arguments: Any) -> Any:
        y, pullback = jax.vjp(transform, *arguments)
        return y, pullback(y_grad)

    query = array(CLIPS, FRAMES, side, side, case.queries, channels)
    return jax.jit(both).lower(query, query, one, one, weights)


def kernels(case: Case, chip: Chip) -> Iterator[dict[str, Any]]:
    """Launch size, registers, spills and shared memory of each kernel."""
    with tempfile.TemporaryDirectory() as directory:
        options = chip.options | {"xla_dump_to": directory, "xla_gpu_dump_llvmir": True}
        lower(case, chip).compile(compiler_options=options)
        (launches,) = Path(directory).glob("*.thunk_sequence.txt")
        programs = {}
        for path in Path(directory).glob("*.ptx"):
            for name in re.findall(r"\.entry (rsa_\w+)", path.read_text()):
                programs[name] = path
        for line in launches.read_text().splitlines():
            if found := LAUNCH.search(line):
                name, *numbers = found.groups()
                x, y, threads, shared = map(int, numbers)
                yield {"kernel": name, "programs": x * y, "threads": threads, "shared": shared} | assemble(
                    programs[name], chip
                )


def assemble(path: Path, chip: Chip) -> dict[str, int]:
    """Registers per thread and bytes spilled of a kernel, from the assembler."""
    architecture = chip.described("major") * 10 + chip.described("minor")
    suffix = "a" if architecture >= 90 else ""
    command = [str(PTXAS), f"-arch=sm_{architecture}{suffix}", "-v", str(path), "-o", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {"registers": _number(REGISTERS, said), "spilled": _number(SPILLED, said)}


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    assert found is not None, text
    return int(found.group(1))


def occupancy(kernel: dict[str, Any], chip: Chip) -> float:
    """Fraction of a multiprocessor's warps that fit."""
    registers = -(-kernel["registers"] // UNIT) * UNIT * kernel["threads"]
    shared = kernel["shared"] + 1024  # 1 kB is reserved by the card
    threads = chip.described("threads_per_core_limit")
    programs = min(
        ALL_REGISTERS // registers, chip.described("shared_memory_per_core") // shared, threads // kernel["threads"]
    )
    return programs * kernel["threads"] / threads


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles and reports."""
    parser = argparse.ArgumentParser("benchmarks.gpu_kernels", description=__doc__)
    parser.add_argument("--chip", choices=[name for name, chip in CHIPS.items() if chip.description], required=True)
    chip = CHIPS[parser.parse_args(argv).chip]
    results, rows = {}, []
    for name, case in CASES.items():
        results[name] = list(kernels(case, chip))
        assert results[name], f"{name}: left to plain JAX"
        for kernel in results[name]:
            kernel["occupancy"] = occupancy(kernel, chip)
            share = f"{100 * kernel['occupancy']:.0f} %"
            columns = ("programs", "threads", "registers", "spilled", "shared")
            rows.append([name, f"`{kernel['kernel']}`", *(kernel[column] for column in columns), share])
    header = ["", "kernel", "programs", "threads", "registers", "bytes spilled", "shared memory, bytes", "occupancy"]
    title = f"Kernels of RSA, {chip.name}, bfloat16 unless noted, {CLIPS} clips of {FRAMES} frames"
    text = f"{title}\n\n{table(header, rows)}\n\nBy the compilers of {compilers(chip)}; nothing was run."
    print(text)
    stem = RESULTS / f"gpu_kernels_{chip.name}"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
