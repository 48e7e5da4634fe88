"""Print the cost of a network layer by layer: parameters, MACs, activations and, on request, time.

python -m rsa_jax profile --config configs/ssv2.py [--time] [--target v5e] [--config.data.num_frames=16 ...]

All figures are for one clip. MACs are counted as in the paper's tables: convolutions, transforms and the classifier
count; BatchNorm, activations and pooling do not.

--target compiles the training step for a chip that need not be present (pip install -e .[tpu] or .[gpu]; one such
process at a time), and prints the estimated memory and time for batch_size, halved until it fits.
"""

import argparse
from collections.abc import Iterator, Sequence

import jax

from rsa_jax.chips import CHIPS
from rsa_jax.costs.compiled import fit_batch
from rsa_jax.costs.measured import Seconds, measure_layers, measure_network
from rsa_jax.costs.traced import LayerCost, layer_costs, network_cost, saved_bytes
from rsa_jax.errors import in_one_line
from rsa_jax.flags import Parser, parse_with_config
from rsa_jax.logs import setup_logging

MIB = 2**20


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("profile", __doc__)
    parser.add_argument("--time", action="store_true", help="measure the time of every layer and of the network, too")
    parser.add_argument("--target", choices=CHIPS, help="compile the training step for this chip, too")
    return parse_with_config(parser, argv)


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


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    args = _parse(argv)
    setup_logging()
    with in_one_line():
        costs = layer_costs(args.config)
    times = measure_layers(args.config, costs) if args.time else []
    print("\n".join(_table(costs, times)))
    parameters, macs = network_cost(costs)
    print(f"\n{parameters:.3f} M parameters, {macs:.3f} G MACs")
    chip = CHIPS[args.target] if args.target else None
    with in_one_line(RuntimeError):
        device = chip.mesh().devices.flat[0] if chip else jax.devices()[0]
        print(f"{saved_bytes(args.config, device) / MIB:.4g} MiB kept for the backward pass")
        if times:
            network, kind = measure_network(args.config), jax.devices()[0].device_kind
            print(f"The whole network on {kind}: forward {network.forward:.3g} s, with gradients {network.both:.3g} s")
        for line in fit_batch(args.config, chip) if chip else ():
            print(line, flush=True)


if __name__ == "__main__":
    main()
