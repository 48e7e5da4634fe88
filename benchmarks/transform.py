"""Times one RSA layer of each stage, by every implementation, beside PyTorch's: forward, and with all gradients.

python -m benchmarks.transform [--repeats 7] [--implementations xla conv ...] [--batch 1] [--frames 8]
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import rsa_jax
from benchmarks.measure import interleaved, report, table
from rsa_jax import ops

# Side of the map, channels, and layers in RSANet-R50.
STAGES = ((56, 64, 1), (28, 128, 2), (14, 256, 3), (7, 512, 1))
PEER, DEFAULT = "PyTorch", "default"


def jax_contenders(name: str, x: np.ndarray) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward, and forward with the gradients of input and parameters, by an implementation or the `DEFAULT`."""
    implementation = None if name == DEFAULT else name
    graph, params = nnx.split(rsa_jax.RSA(x.shape[-1], implementation=implementation, rngs=nnx.Rngs(0)))

    def forward(params: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(x)

    def loss(params: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(forward(params, x)))

    programs = jax.jit(forward), jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    array = jnp.asarray(x)
    first, second = (functools.partial(_finish, program, params, array) for program in programs)
    return first, second


def _finish(program: Callable, *args: object) -> object:
    return jax.block_until_ready(program(*args))


def torch_contenders(x: np.ndarray) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same of the peer."""
    import torch

    from benchmarks.pytorch_peer import RSA

    layer = RSA(x.shape[-1])
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))).requires_grad_()

    def forward() -> object:
        with torch.no_grad():
            return layer(tensor)

    def gradients() -> object:
        layer.zero_grad(set_to_none=True)
        tensor.grad = None
        return layer(tensor).square().sum().backward()

    return forward, gradients


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.transform", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="turns (%(default)s)")
    names = [DEFAULT, *ops.IMPLEMENTATIONS]
    parser.add_argument("--implementations", nargs="+", default=names, choices=names)
    parser.add_argument("--batch", type=int, default=1, help="clips (%(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="of a clip (%(default)s)")
    args = parser.parse_args(argv)
    results: list[dict[str, Any]] = []
    for side, channels, layers in STAGES:
        shape = (args.batch, args.frames, side, side, channels)
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        pairs = {PEER: torch_contenders(x)} | {name: jax_contenders(name, x) for name in args.implementations}
        for index, what in enumerate(("forward", "forward + gradients")):
            seconds = interleaved({name: pair[index] for name, pair in pairs.items()}, args.repeats)
            results.append({"side": side, "channels": channels, "layers": layers, "what": what, "seconds": seconds})
            print(f"{side} x {side} x {channels}, {what}: {seconds}", flush=True)
    names = [PEER, *args.implementations]
    tables = {}
    for what in ("forward", "forward + gradients"):
        rows = [r for r in results if r["what"] == what]
        cells = [[f"{r['side']}² x {r['channels']}", *(r["seconds"][name] for name in names)] for r in rows]
        sums = [sum(r["layers"] * r["seconds"][name] for r in rows) for name in names]
        cells.append(["7 layers of RSANet-R50", *sums])
        cells.append(["relative to PyTorch", *(value / sums[0] for value in sums)])
        title = (
            f"One RSA layer with its projection, {what}, seconds; {args.batch} clip of {args.frames} frames, float32"
        )
        tables[title] = table(["map", *names], cells)
    report("transform", tables, results)


if __name__ == "__main__":
    main()
