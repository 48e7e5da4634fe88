"""Times one RSA layer of each stage, in every implementation, against PyTorch: forward, and with all gradients.

python -m benchmarks.transform [--repeats 7] [--implementations xla conv ...] [--batch 1] [--frames 8]
    [--dtype bfloat16] [--compile]
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
from benchmarks.measure import add_flags, interleaved, native_implementations, report, table
from rsa_jax import ops

# Side of the feature map, channels, and number of layers in RSANet-R50.
STAGES = ((56, 64, 1), (28, 128, 2), (14, 256, 3), (7, 512, 1))
PEER, DEFAULT = "PyTorch", "default"


def jax_contenders(name: str, x: np.ndarray, dtype: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward, and forward with gradients of input and parameters, for an implementation or `DEFAULT`."""
    implementation = None if name == DEFAULT else name
    layer = rsa_jax.RSA(x.shape[-1], implementation=implementation, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)

    def forward(params: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(x)

    def loss(params: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(forward(params, x).astype(jnp.float32)))

    jit = functools.partial(jax.jit, compiler_options=ops.compiler_options(jax.default_backend()))
    programs = jit(forward), jit(jax.value_and_grad(loss, argnums=(0, 1)))
    array = jnp.asarray(x, dtype)
    first, second = (functools.partial(_finish, program, params, array) for program in programs)
    return first, second


def _finish(program: Callable, *args: object) -> object:
    return jax.block_until_ready(program(*args))


def torch_contenders(x: np.ndarray, dtype: str, *, compiled: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward, and forward with gradients of input and parameters, in PyTorch."""
    import torch

    from benchmarks import pytorch_peer as peer

    on = peer.device(jax.default_backend())
    layer = peer.RSA(x.shape[-1]).to(on)
    run = peer.in_type(layer, dtype, on, compiled=compiled)
    array = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    tensor = array.to(on, getattr(torch, dtype)).requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            run(tensor)
        peer.finish(on)

    def gradients() -> None:
        layer.zero_grad(set_to_none=True)
        tensor.grad = None
        run(tensor).float().square().sum().backward()
        peer.finish(on)

    return forward, gradients


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.transform", description=__doc__)
    add_flags(parser, repeats=7)
    names = [DEFAULT, *native_implementations()]
    parser.add_argument("--implementations", nargs="+", default=names, choices=[DEFAULT, *ops.IMPLEMENTATIONS])
    args = parser.parse_args(argv)
    results: list[dict[str, Any]] = []
    for side, channels, layers in STAGES:
        shape = (args.batch, args.frames, side, side, channels)
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        pairs = {PEER: torch_contenders(x, args.dtype, compiled=args.compile)}
        pairs |= {name: jax_contenders(name, x, args.dtype) for name in args.implementations}
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
        size = f"{args.batch} clip(s) of {args.frames} frames, {args.dtype}"
        title = f"One RSA layer with its projection, {what}, seconds; {size}{', torch.compile' * args.compile}"
        tables[title] = table(["map", *names], cells)
    report(f"transform{'_bfloat16' * (args.dtype == 'bfloat16')}", tables, results)


if __name__ == "__main__":
    main()
