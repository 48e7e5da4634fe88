"""Prints the cost of a network layer by layer: parameters, multiply-adds, activations and, on request, time.

python -m rsa_jax.tools.profile --config configs/ssv2.py [--time] [--target v5e] [--config.data.num_frames=16 ...]

All figures are for one clip. Multiply-adds (MACs) are counted as in the paper's tables: convolutions, transforms and
the classifier count; BatchNorm, activations and pooling do not.

--target compiles the training step for a chip that need not be present (pip install -e .[tpu] or .[gpu]; one such
process at a time), and prints the estimated memory and time for batch_size, halved until it fits.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import nnx
from ml_collections import ConfigDict

from rsa_jax.chips import CHIPS, Chip, Cost, compile_for
from rsa_jax.errors import in_one_line
from rsa_jax.flags import CONFIG, parse
from rsa_jax.logs import setup_logging
from rsa_jax.nn.layers import BatchNorm
from rsa_jax.nn.network import TSNResNet, create_model
from rsa_jax.nn.watch import layer_name, watch
from rsa_jax.precision import with_precision
from rsa_jax.training.models import blank_model
from rsa_jax.training.programs import lower_train_step
from rsa_jax.training.state import PyTree, define_model, merge_model, split_model, with_implementation

TIME = flags.DEFINE_bool("time", False, "Measure the time of every layer and of the network on this machine, too.")
TARGET = flags.DEFINE_enum("target", None, list(CHIPS), "Compile the training step for this chip, too.")

REPEATS = 5
# Stored frame size if no data set defines it: that of videos prepared with a short side of 240.
FRAME_SIZE = (240, 320)
MIB, GIB = 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one clip.

    Attributes:
        name: name of the layer in the network.
        kind: class of the layer.
        input: shape of the input, `B T H W C` or `B T C`.
        output: shape and dtype of the output.
        parameters: number of parameters.
        macs: number of MACs.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    output: jax.ShapeDtypeStruct
    parameters: int
    macs: int

    @property
    def output_bytes(self) -> int:
        """Size of the output in bytes."""
        return self.output.size * self.output.dtype.itemsize


class Seconds(NamedTuple):
    """Times of a forward pass, and of a forward pass with gradients."""

    forward: float
    both: float


def profile(config: ConfigDict) -> list[LayerCost]:
    """Cost of every layer that has parameters, in the order of computation. The network is traced, not run.

    Args:
        config: configuration of a run, with `model.num_classes` set.

    Raises:
        ValueError: If a field of the configuration is invalid.
    """
    costs: list[LayerCost] = []

    def trace(clip: jax.Array) -> jax.Array:
        # Recomputing a block would trace it twice.
        model = create_model(_changed(config.model, remat=False), rngs=nnx.Rngs(0))
        model.eval()
        for path, layer in list(_layers(model)):
            watch(model, path, functools.partial(_note, costs, path, layer))
        return model(clip)

    jax.eval_shape(trace, _clip(config))
    return costs


def saved_bytes(config: ConfigDict, device: jax.Device) -> int:
    """Bytes of one clip's residuals that JAX keeps for the backward pass of a training step on a device.

    XLA may recompute some of them instead. Parameters do not count.
    """
    model = _changed(config.model, batch_norm_clips=0)
    graph = define_model(model, device).train

    def forward(params: PyTree, batch_stats: PyTree, clip: jax.Array) -> Any:
        def logits(params: PyTree) -> jax.Array:
            return merge_model(graph, params, batch_stats)(clip, rngs=nnx.Rngs(0))

        return jax.vjp(logits, params)[1]

    params, batch_stats = jax.eval_shape(lambda: split_model(create_model(model, rngs=nnx.Rngs(0))))
    kept = jax.tree.leaves(jax.eval_shape(forward, params, batch_stats, _clip(config)))
    parameters = [leaf.shape for leaf in jax.tree.leaves(params)]
    total = 0
    for leaf in kept:
        if leaf.shape in parameters:
            parameters.remove(leaf.shape)
        else:
            total += leaf.size * leaf.dtype.itemsize
    return total


def step_cost(config: ConfigDict, chip: Chip) -> Cost:
    """Compiles the training step for one chip, and returns the estimated cost.

    Args:
        config: configuration of a run, with `model.num_classes` set.
        chip: kind of chip.

    Raises:
        RuntimeError: If the compiler is not installed.
        jax.errors.JaxRuntimeError: If compilation fails, for example for lack of memory.
        ValueError: If a field of the configuration is invalid.
    """
    return compile_for(chip, lower_train_step(config, chip.mesh(), FRAME_SIZE))


def fitting(config: ConfigDict, chip: Chip) -> Iterator[str]:
    """Lines of text on the training step on one chip, with the configured batch size halved until it fits."""
    config = config.copy_and_resolve_references()
    # Every chunk of the gradient accumulation consists of whole ghost batches.
    unit = max(1, config.model.batch_norm_clips) * config.optimizer.accumulation
    while True:
        name, most = f"{chip.name}, {config.batch_size} clips", f"{chip.memory / GIB:.1f} GiB"
        try:
            cost = step_cost(config, chip)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield f"{name}: does not fit into {most} ({_first_line(error)})"
        else:
            fits = cost.total <= chip.memory
            needs = f"{cost.total / GIB:.2f} of {most}" if fits else f"does not fit, {cost.total / GIB:.2f} of {most}"
            yield f"{name}: {needs}, {_time(cost, chip)}"
            if fits:
                return
        if config.batch_size % (2 * unit):
            yield (
                f"{chip.name}: no batch fits. {config.batch_size} clips cannot be halved: a batch is a multiple of "
                f"{unit} (model.batch_norm_clips, optimizer.accumulation). model.remat=True saves memory."
            )
            return
        config.batch_size //= 2


def _time(cost: Cost, chip: Chip) -> str:
    if chip.clock:
        return f"{1e3 * cost.seconds:.1f} ms a step by the compiler's estimate"
    return f"{1e3 * cost.seconds:.1f} ms a step for {cost.traffic / 1e9:.1f} GB at the memory's peak"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")


def measure_layers(config: ConfigDict, costs: Sequence[LayerCost]) -> list[Seconds]:
    """Times of each single layer for one clip. Layers of the same kind, shape and size are measured once."""
    model = blank_model(with_implementation(config.model, jax.devices()[0]))
    layers: dict[str, Any] = {layer_name(path): layer for path, layer in _layers(model)}
    measured: dict[tuple, Seconds] = {}
    for cost in costs:
        if _kind(cost) not in measured:
            layer = layers[cost.name]
            layer.eval()
            measured[_kind(cost)] = _measure(layer, jnp.ones(cost.input, cost.output.dtype), config.matmul_precision)
    return [measured[_kind(cost)] for cost in costs]


def measure_network(config: ConfigDict) -> Seconds:
    """Times of the whole network for one clip, without dropout and stochastic depth."""
    model = blank_model(with_implementation(config.model, jax.devices()[0]))
    model.eval()
    return _measure(model, jnp.ones(_clip(config).shape), config.matmul_precision)


def _measure(layer: nnx.Module, x: jax.Array, precision: str) -> Seconds:
    graph, state = nnx.split(layer)

    def forward(state: nnx.State, x: jax.Array) -> jax.Array:
        layer: Any = nnx.merge(graph, state, copy=True)
        return layer(x)

    def loss(state: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(forward(state, x)), dtype=jnp.float32)

    programs = (jax.jit(with_precision(function, precision)) for function in (forward, jax.grad(loss, argnums=(0, 1))))
    return Seconds(*(_seconds(program, state, x) for program in programs))


def _seconds(program: Callable, *args: Any) -> float:
    """Median time of `REPEATS` runs, after one that compiles."""
    jax.block_until_ready(program(*args))
    durations = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(program(*args))
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def _layers(model: TSNResNet) -> Iterator[tuple[tuple[Any, ...], nnx.Module]]:
    """Paths and layers that have parameters. A transform with all its submodules is one layer."""
    layers = {
        path: layer
        for path, layer in nnx.iter_modules(model)
        if hasattr(layer, "macs") or isinstance(layer, BatchNorm) or path == ("fc",)
    }
    for path, layer in layers.items():
        if not any(path[:length] in layers for length in range(len(path))):
            yield path, layer


def _note(costs: list[LayerCost], path: Sequence[Any], layer: Any, x: jax.Array, y: jax.Array) -> None:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
    if isinstance(layer, nnx.Linear):
        macs = x.shape[0] * x.shape[1] * layer.kernel.size
    else:
        macs = 0 if isinstance(layer, BatchNorm) else layer.macs(x.shape)
    output = jax.ShapeDtypeStruct(y.shape, y.dtype)
    costs.append(LayerCost(layer_name(path), type(layer).__name__, x.shape, output, parameters, macs))


def _kind(cost: LayerCost) -> tuple:
    return cost.kind, cost.input, cost.output.shape, cost.parameters


def _changed(model: ConfigDict, **fields: Any) -> ConfigDict:
    model = model.copy_and_resolve_references()
    model.update(fields)
    return model


def _clip(config: ConfigDict) -> jax.ShapeDtypeStruct:
    side = config.data.image_size
    return jax.ShapeDtypeStruct((1, config.data.num_frames, side, side, 3), jnp.dtype(config.model.dtype))


def _table(costs: Sequence[LayerCost], times: Sequence[Seconds]) -> Iterator[str]:
    """Lines of the table: header, one per layer, one for all BatchNorms, total. Without times, no time columns."""
    header = f"{'layer':<24}{'':<15}{'output T H W C':<18}{'parameters':>12}{'M MACs':>13}{'output MiB':>12}"
    yield header + (f"{'ms':>10}{'+ grad ms':>11}" if times else "")
    norms = [index for index, cost in enumerate(costs) if cost.kind == "BatchNorm"]
    for index, cost in enumerate(costs):
        if index not in norms:
            shape = " ".join(map(str, cost.output.shape[1:]))
            yield _line(f"{cost.name:<24}{cost.kind:<15}{shape:<18}", [cost], times[index : index + 1])
    yield _line(f"BatchNorm, {len(norms)} layers", [costs[i] for i in norms], [times[i] for i in norms if times])
    yield _line("total", costs, times)


def _line(name: str, costs: Sequence[LayerCost], times: Sequence[Seconds]) -> str:
    parameters, macs = (sum(getattr(c, field) for c in costs) for field in ("parameters", "macs"))
    memory = sum(cost.output_bytes for cost in costs) / MIB
    columns = [1e3 * sum(column) for column in zip(*times, strict=True)]
    line = f"{name:<57}{parameters:>12,}{macs / 1e6:>13,.1f}{memory:>12.2f}"
    return line + "".join(f"{column:>{width}.2f}" for column, width in zip(columns, (10, 11), strict=False))


def main(argv: list[str]) -> None:
    """Prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    setup_logging()
    config = CONFIG.value
    with in_one_line():
        costs = profile(config)
    times = measure_layers(config, costs) if TIME.value else []
    print("\n".join(_table(costs, times)))
    parameters, macs = sum(c.parameters for c in costs) / 1e6, sum(c.macs for c in costs) / 1e9
    print(f"\n{parameters:.3f} M parameters, {macs:.3f} G MACs")
    chip = CHIPS[TARGET.value] if TARGET.value else None
    with in_one_line(RuntimeError):
        device = chip.mesh().devices.flat[0] if chip else jax.devices()[0]
        print(f"{saved_bytes(config, device) / MIB:.4g} MiB kept for the backward pass")
        if times:
            network, kind = measure_network(config), jax.devices()[0].device_kind
            print(f"The whole network on {kind}: forward {network.forward:.3g} s, with gradients {network.both:.3g} s")
        for line in fitting(config, chip) if chip else ():
            print(line, flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
