"""Shared by the benchmarks: interleaved timing, description of the machine, tables and result files."""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from rsa_jax import ops

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "flax", "torch", "numpy", "pillow", "tensorflow-cpu")


def interleaved(contenders: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each contender, run in turns, so that other load on the machine affects all alike.

    Args:
        contenders: functions by name; each returns when its work is done. The first call, which compiles, is not timed.
        repeats: number of turns.
    """
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def add_flags(parser: argparse.ArgumentParser, *, repeats: int) -> None:
    """Adds the flags of the benchmarks with a PyTorch baseline."""
    parser.add_argument("--repeats", type=int, default=repeats, help="turns (%(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="clips per batch (%(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="frames per clip (%(default)s)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of matrix products (%(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the PyTorch baseline with torch.compile")


def native_implementations() -> list[str]:
    """Implementations that this machine runs without interpreting them."""
    platforms = {"cpu", "gpu", "tpu"} - {jax.default_backend()}
    return [name for name in ops.IMPLEMENTATIONS if name not in platforms]


def machine() -> dict[str, Any]:
    """Hardware and package versions of the measurement."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    malloc = os.environ.get("GLIBC_TUNABLES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": f"{device.platform}: {device.device_kind}",
        "python": platform.python_version(),
        **versions,
        **({"GLIBC_TUNABLES": malloc} if malloc else {}),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats have three significant digits, and no decimals from a thousand on."""
    text = [[_digits(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(header), ["---"] * len(header), *text])


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def report(name: str, tables: Mapping[str, str], results: Any) -> None:
    """Prints the tables, and writes results/NAME_PLATFORM.json and .md."""
    about = machine()
    where = ", ".join(f"{key} {value}" for key, value in about.items())
    text = "\n\n".join([*(f"{title}\n\n{body}" for title, body in tables.items()), f"Measured with {where}."])
    print(text)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"{name}_{jax.default_backend()}"
    stem.with_suffix(".json").write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
