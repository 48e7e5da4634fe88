"""Compiles the TPU kernels of RSA for chips that need not be present, and counts their instruction bundles.

python -m benchmarks.tiles --chip v5e|v6e

Covers the layers of RSANet-R50, tiles other than the chosen ones, and layers that differ in one size. A bundle takes
about one cycle. The results include the estimates of the cost model that chooses the tiles: rsa_jax/ops/tpu/tiles.py.
"""

import argparse
import dataclasses
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerators import CLIPS, FRAMES, MIB, compilers
from benchmarks.measure import RESULTS, table
from benchmarks.transform import STAGES
from rsa_jax.chips import CHIPS, Chip
from rsa_jax.chips.bundles import DUMP, bundles_of, kernel_cycles
from rsa_jax.ops.equations import RSAWeights
from rsa_jax.ops.tpu.backward import backward
from rsa_jax.ops.tpu.forward import forward
from rsa_jax.ops.tpu.operands import Maps, Operands, make_operands
from rsa_jax.ops.tpu.tiles import LANES, Sizes, Tile, choose_tile

QUERIES, KERNEL_SIZE = 8, (5, 7, 7)
# Changes to the third stage, 14² x 256, one size at a time.
VARIANTS: dict[str, dict[str, Any]] = {
    "8 frames": {"frames": 8},
    "32 frames": {"frames": 32},
    "28² pixels": {"height": 28, "width": 28},
    "window 3 x 3 x 3": {"kernel_size": (3, 3, 3)},
    "window 5 x 11 x 11": {"kernel_size": (5, 11, 11)},
    "4 queries": {"queries": 4, "channels": 64, "latent": 64},
    "16 queries": {"queries": 16, "channels": 16, "latent": 16},
    "latent dimension 8": {"latent": 8},
    "latent dimension 64": {"latent": 64},
    "kernel V": {"relation": False},
    "context V": {"context": False},
    "float32": {"itemsize": 4},
}
TILES = ((1, 2), (1, 4), (2, 1), (2, 2))


def stage(side: int, channels: int) -> Sizes:
    """Sizes of the transform in a layer of RSANet-R50."""
    width = channels // QUERIES
    return Sizes(FRAMES, side, side, KERNEL_SIZE, QUERIES, width, width, relation=True, context=True, itemsize=2)


def programs() -> Iterator[tuple[str, Tile]]:
    """Names and tiles of all programs."""
    for side, channels, _ in STAGES:
        tile = choose_tile(stage(side, channels))
        assert tile is not None
        yield f"{side}² x {channels}", tile
    side, channels, _ = STAGES[2]
    sizes = stage(side, channels)
    for height, width in TILES:
        yield f"{side}² x {channels}, tiles of {height} x {width}", Tile(height, width, sizes)
    for name, changed in VARIANTS.items():
        tile = choose_tile(dataclasses.replace(sizes, **changed))
        assert tile is not None
        yield f"{side}² x {channels}, {name}", tile


def abstract_operands(tile: Tile, chip: Chip) -> Operands:
    """Abstract operands for a whole batch of clips."""
    sizes = tile.sizes
    dtype = jnp.bfloat16 if sizes.itemsize == 2 else jnp.float32
    positions = sizes.kernel_size[0] * sizes.kernel_size[1] * sizes.kernel_size[2]

    def array(shape: tuple[int, ...]) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    pixels, count = (sizes.height, sizes.width), CLIPS * sizes.frames
    channels, latent = sizes.channels, sizes.latent if sizes.relation else sizes.channels
    one = array((*pixels, channels, count))
    maps = Maps(array((*pixels, sizes.queries, channels, count)), one if sizes.relation else None, one)
    weights = RSAWeights(
        array((positions, latent)),
        array((positions, channels, latent)) if sizes.relation else None,
        array((channels, latent)) if sizes.relation else None,
        array((positions, channels)) if sizes.context else None,
        array((channels, channels)) if sizes.context else None,
    )
    shapes = jax.eval_shape(functools.partial(make_operands, tile=tile), maps, weights)
    sharding = jax.NamedSharding(chip.mesh(), jax.P())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def results(operands: Operands) -> jax.ShapeDtypeStruct:
    """Abstract results of a transform, in the kernels' layout."""
    height, width, queries, channels, frames = operands.query.shape
    shape, like = (height, width, queries * channels, frames), operands.query
    return jax.ShapeDtypeStruct(shape, like.dtype, sharding=like.sharding)


def measure(tile: Tile, chip: Chip, directory: Path) -> dict[str, Any]:
    """Bundles of both kernels, and the cost model's estimates."""
    operands = abstract_operands(tile, chip)
    result: dict[str, Any] = {"tile": [tile.height, tile.width], "vmem": tile.vmem()}
    blocks = operands.query.shape[-1] // LANES
    for name, function, arrays in (
        ("forward", forward, (operands,)),
        ("backward", backward, (operands, results(operands))),
    ):
        program = functools.partial(function, tile=tile, interpret=False)
        with jax.default_matmul_precision("float32" if tile.sizes.itemsize == 4 else "bfloat16"):
            jax.jit(program).lower(*arrays).compile()
        bundles = kernel_cycles(bundles_of(directory, f"rsa_{name}"))
        result[name] = {"bundles": bundles, "model": blocks * tile.cycles(gradients=name == "backward")}
        shutil.rmtree(directory)
    return result


def write(chip: Chip, results: dict[str, Any]) -> None:
    """Writes the results as JSON and as a table."""
    rows = []
    for name, result in results.items():
        both = [result["forward"], result["backward"]]
        milliseconds = [1e3 * part["bundles"] / (chip.clock or 1) for part in both]
        ratios = [part["model"] / part["bundles"] for part in both]
        rows.append([name, "{} x {}".format(*result["tile"]), *milliseconds, *ratios, result["vmem"] / MIB])
    header = ["", "tile", "forward, ms", "gradients, ms", "model, forward", "model, gradients", "VMEM, MiB"]
    title = f"Kernels of RSA, {chip.name}, bfloat16 unless noted, {CLIPS} clips of {FRAMES} frames; bundles as cycles"
    text = f"{title}\n\n{table(header, rows)}\n\nBy the compilers of {compilers(chip)}; nothing was run."
    print(text)
    stem = RESULTS / f"tiles_{chip.name}"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles and reports."""
    parser = argparse.ArgumentParser("benchmarks.tiles", description=__doc__)
    parser.add_argument("--chip", choices=[name for name, chip in CHIPS.items() if chip.clock], required=True)
    args = parser.parse_args(argv)
    chip = CHIPS[args.chip]
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent) / "bundles"
        # The compiler reads this when it starts.
        os.environ["LIBTPU_INIT_ARGS"] = DUMP.format(directory=directory)
        write(chip, {name: measure(tile, chip, directory) for name, tile in programs()})


if __name__ == "__main__":
    main()
