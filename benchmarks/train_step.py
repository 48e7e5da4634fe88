"""Times the training step of RSANet-R50 and of the same network without RSA against PyTorch's; and its compilation.

python -m benchmarks.train_step [--repeats 5] [--batch 1] [--frames 8] [--size 224] [--dtype bfloat16] [--compile]
    [--implementation gpu]
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import add_flags, interleaved, report, table
from rsa_jax import ops
from rsa_jax.settings import default_config
from rsa_jax.training.optimizer import make_optimizer, make_schedule
from rsa_jax.training.state import TrainState, create_state, define_model
from rsa_jax.training.step import make_update

CLASSES = 174


def make_program(
    batch: Sequence[jax.Array | jax.ShapeDtypeStruct], **model: Any
) -> tuple[Callable[[], TrainState], jax.stages.Compiled, float]:
    """A function that returns the initial state, the compiled step, and its compilation time in seconds.

    Args:
        batch: normalised clips and labels.
        model: fields of `config.model`.
    """
    config = default_config()
    config.model.update(num_classes=CLASSES, **model)
    schedule = make_schedule(config.optimizer, epochs=config.epochs, steps_per_epoch=1000)
    optimizer = make_optimizer(config.optimizer, schedule)
    init = jax.jit(lambda: create_state(config, optimizer))
    update = jax.jit(
        make_update(define_model(config.model, jax.devices()[0]), optimizer, config),
        donate_argnums=0,
        compiler_options=ops.compiler_options(jax.default_backend()),
    )
    lowered = update.lower(jax.eval_shape(init), *batch)
    start = time.perf_counter()
    program = lowered.compile()
    return init, program, time.perf_counter() - start


def jax_step(clips: np.ndarray, label: np.ndarray, **model: Any) -> tuple[Callable[[], object], float]:
    """The compiled step, which donates the old state's memory, and its compilation time in seconds."""
    batch = jnp.asarray(clips, model.get("dtype", "float32")), jnp.asarray(label)
    init, program, seconds = make_program(batch, **model)
    state = init()

    def step() -> None:
        nonlocal state
        state, metrics = program(state, *batch)
        jax.block_until_ready((state, metrics))

    return step, seconds


def torch_step(
    transform: str, clips: np.ndarray, label: np.ndarray, dtype: str = "float32", *, compiled: bool = False
) -> Callable[[], object]:
    """The training step in PyTorch: forward, backward, clipping, SGD with Nesterov momentum."""
    import torch

    from benchmarks import pytorch_peer as peer

    on = peer.device(jax.default_backend())
    network = peer.RSANet(CLASSES, peer.POSITIONS if transform == "rsa" else ((),) * 4).train().to(on)
    run = peer.in_type(network, dtype, on, compiled=compiled)
    optimizer = torch.optim.SGD(network.parameters(), 0.004, momentum=0.9, nesterov=True, weight_decay=5e-4)
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(clips, -1, 1))).to(on, getattr(torch, dtype))
    target = torch.from_numpy(label).long().to(on)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(run(tensor).float(), target).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 100.0)
        optimizer.step()
        peer.finish(on)

    return step


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser("benchmarks.train_step", description=__doc__)
    add_flags(parser, repeats=5)
    parser.add_argument("--size", type=int, default=224, help="side of a frame (%(default)s)")
    parser.add_argument("--implementation", choices=ops.IMPLEMENTATIONS, help="of rsa-jax (that of the device)")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((args.batch, args.frames, args.size, args.size, 3)).astype(np.float32)
    label = rng.integers(0, CLASSES, args.batch).astype(np.int32)
    results: list[dict[str, Any]] = []
    for transform in ("rsa", "conv2d"):
        fields = {"transform": transform, "dtype": args.dtype, "implementation": args.implementation}
        step, compilation = jax_step(clips, label, **fields)
        peer = torch_step(transform, clips, label, args.dtype, compiled=args.compile)
        seconds = interleaved({"PyTorch": peer, "rsa-jax": step}, args.repeats)
        results.append({"transform": transform, "compilation": compilation, "seconds": seconds})
        print(results[-1], flush=True)
    rows = []
    for r in results:
        peer, ours = r["seconds"].values()
        rows.append([r["transform"], peer, ours, ours / peer, args.batch / ours, r["compilation"]])
    size = f"{args.batch} clip(s) of {args.frames} x {args.size}², {args.dtype}{', torch.compile' * args.compile}"
    by = f", implementation {args.implementation}" if args.implementation else ""
    title = f"Training step of ResNet-50 with and without RSA, seconds; {size}{by}"
    header = ["transform", "PyTorch", "rsa-jax", "ratio", "clips/s", "compilation"]
    kind = [args.dtype] * (args.dtype != "float32") + [args.implementation] * bool(args.implementation)
    report("_".join(["train_step", *kind]), {title: table(header, rows)}, results)


if __name__ == "__main__":
    main()
