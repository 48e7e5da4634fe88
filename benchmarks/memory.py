"""Reports memory from the compiler's own analysis: each implementation of the transform, and the training step.

The analysis runs nothing, so real sizes work on any machine. PyTorch has no such analysis: its step on one clip is run
in a separate process, and the largest resident set is read, which includes the library.

python -m benchmarks.memory [--batch 8] [--frames 16] [--size 224]
"""

import argparse
import concurrent.futures
import multiprocessing
import resource
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import rsa_jax
from benchmarks.measure import interleaved, report, table
from benchmarks.train_step import jax_step, make_program, torch_step
from rsa_jax import ops

MIB = 2**20
# Channels and stride of each stage.
STAGES = ((64, 4), (128, 8), (256, 16), (512, 32))
WINDOW, QUERIES = 5 * 7 * 7, 8


def temporary(program: jax.stages.Compiled) -> float:
    """Peak memory besides arguments and results, in MiB."""
    return analysis(program).temp_size_in_bytes / MIB


def analysis(program: jax.stages.Compiled) -> Any:
    """The compiler's memory analysis, in bytes."""
    found = program.memory_analysis()
    if found is None:
        raise SystemExit(f"The compiler for {jax.default_backend()} does not report memory.")
    return found


def transform_rows(batch: int, frames: int, size: int) -> list[list[Any]]:
    """Rows for each stage, in MiB: the paper's two orders, then each implementation, forward and with gradients."""
    rows = []
    for channels, stride in STAGES:
        side, width = size // stride, channels // QUERIES
        x = jax.ShapeDtypeStruct((batch, frames, side, side, channels), jnp.float32)
        positions = batch * frames * side * side
        row: list[Any] = [f"{side}² x {channels}", positions * WINDOW * width * 4 / MIB, positions * width**2 * 4 / MIB]
        for name in ops.IMPLEMENTATIONS:
            graph, params = nnx.split(rsa_jax.RSA(channels, implementation=name, rngs=nnx.Rngs(0)))

            def forward(params: nnx.State, x: jax.Array, graph: Any = graph) -> jax.Array:
                return nnx.merge(graph, params)(x)

            def loss(params: nnx.State, x: jax.Array, forward: Any = forward) -> jax.Array:
                return jnp.sum(jnp.square(forward(params, x)))

            for function in (forward, jax.grad(loss, argnums=(0, 1))):
                row.append(temporary(jax.jit(function).lower(params, x).compile()))
        rows.append(row)
        print(row, flush=True)
    return rows


def network_rows(batch: int, frames: int, size: int) -> list[list[Any]]:
    """Rows for the training step of RSANet-R50: MiB, and compilation time in seconds."""
    clips = jax.ShapeDtypeStruct((batch, frames, size, size, 3), jnp.float32)
    label = jax.ShapeDtypeStruct((batch,), jnp.int32)
    rows = []
    for name, remat in (*((name, False) for name in ops.IMPLEMENTATIONS), ("cpu", True)):
        _, program, seconds = make_program((clips, label), implementation=name, remat=remat)
        rows.append([name, "yes" if remat else "no", temporary(program), seconds])
        print(rows[-1], flush=True)
    return rows


def torch_peak(frames: int, size: int) -> float:
    """MiB that three training steps on one clip add to the largest resident set of this process."""
    clips, label = np.ones((1, frames, size, size, 3), np.float32), np.zeros(1, np.int32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = torch_step("rsa", clips, label)
    for _ in range(3):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / MIB


def beside_torch(frames: int, size: int) -> list[list[Any]]:
    """Rows with the peak of the training step on one clip, state included, and the cost of rematerialisation."""
    clips, label = np.ones((1, frames, size, size, 3), np.float32), np.zeros(1, np.int32)
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawned) as process:
        rows: list[list[Any]] = [["PyTorch, resident set", process.submit(torch_peak, frames, size).result(), "-"]]
    steps = {}
    for name, remat in (("rsa-jax, analysis", False), ("rsa-jax, analysis, model.remat=True", True)):
        _, program, _ = make_program(jax.eval_shape(lambda: (jnp.asarray(clips), jnp.asarray(label))), remat=remat)
        found = analysis(program)
        state = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        rows.append([name, state / MIB + temporary(program), 0.0])
        steps[name], _ = jax_step(clips, label, remat=remat)
    seconds = interleaved(steps, 3)
    for row in rows[1:]:
        row[-1] = seconds[row[0]]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.memory", description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="clips (%(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="of a clip (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of a frame (%(default)s)")
    args = parser.parse_args(argv)
    peer = beside_torch(8, args.size)
    transform = transform_rows(args.batch, args.frames, args.size)
    network = network_rows(args.batch, args.frames, args.size)
    sizes = f"{args.batch} clips of {args.frames} x {args.size}², float32"
    columns = [f"{name}, {what}" for name in ops.IMPLEMENTATIONS for what in ("forward", "gradients")]
    tables = {
        f"One RSA layer, temporary MiB; {sizes}": table(["map", "B N M C", "B N C²", *columns], transform),
        f"Training step of RSANet-R50, temporary MiB; {sizes}": table(
            ["implementation", "remat", "MiB", "compilation, s"], network
        ),
        f"Training step of RSANet-R50, peak MiB with the state; 1 clip of 8 x {args.size}², float32": table(
            ["", "MiB", "seconds"], peer
        ),
    }
    report("memory", tables, {"transform": transform, "network": network, "beside PyTorch": peer})


if __name__ == "__main__":
    main()
