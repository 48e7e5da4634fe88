"""Compiles layers, networks and the input for chips that need not be present, and reports their compilers' analyses.

python -m benchmarks.accelerators --chip v5e|v6e|h100 [--only TEXT ...] [--again]

Each result is written as soon as it is available, to results/accelerators_CHIP.json and .md. Programs that already
have a result from the installed compiler are skipped, unless --again is given. A training step takes minutes to
compile. Run one process at a time: all write the same file.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from benchmarks.measure import RESULTS, table
from benchmarks.textbook_resnet import make_step
from benchmarks.transform import STAGES
from rsa_jax import ops
from rsa_jax.chips import CHIPS, Chip, Cost, compile_for
from rsa_jax.evaluation.evaluator import jit_eval_step
from rsa_jax.evaluation.views import View
from rsa_jax.input_pipeline.augmentation import square_crop
from rsa_jax.nn.layers import SpatialConv
from rsa_jax.nn.protocols import Transform
from rsa_jax.nn.registry import TRANSFORMS, transform_factory
from rsa_jax.precision import with_precision
from rsa_jax.settings import default_config
from rsa_jax.training.mesh import replicated, split_batch
from rsa_jax.training.optimizer import make_optimizer
from rsa_jax.training.state import ModelDefinition, abstract_state, create_state, define_model
from rsa_jax.training.step import abstract_batch, lower_train_step, make_augment, make_update

CLIPS, FRAMES, SIDE, CLASSES = 8, 16, 224, 174
STORED = (240, 320)
MIB, GIB = 2**20, 2**30
# A slice of 16 chips; a host of eight cards.
PODS = {"tpu": (4, 4), "cuda": (8,)}

Lower = Callable[[jax.sharding.Mesh], jax.stages.Lowered]


def make_config(**fields: Any) -> ConfigDict:
    """RSANet-R50 in bfloat16, with some fields changed."""
    config = default_config()
    config.update_from_flattened_dict(
        {
            "model.num_classes": CLASSES,
            "model.dtype": "bfloat16",
            "batch_size": CLIPS,
            "data.num_frames": FRAMES,
            "data.image_size": SIDE,
            **fields,
        }
    )
    return config


def update(mesh: jax.sharding.Mesh, config: ConfigDict) -> jax.stages.Lowered:
    """State update on normalised clips."""
    optimizer = _optimizer(config)
    state = abstract_state(lambda: create_state(config, optimizer), mesh)
    shape = (config.batch_size, FRAMES, SIDE, SIDE, 3)
    clips = jax.ShapeDtypeStruct(shape, jnp.dtype(config.model.dtype), sharding=split_batch(mesh))
    label = jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=split_batch(mesh))
    step = with_precision(make_update(_define(config, mesh), optimizer, config), config.matmul_precision)
    options = ops.compiler_options(mesh.devices.flat[0].platform)
    return jax.jit(step, donate_argnums=0, compiler_options=options).lower(state, clips, label)


def train_step(mesh: jax.sharding.Mesh, config: ConfigDict) -> jax.stages.Lowered:
    """Whole training step from stored frames, with the batch split over the chips."""
    return lower_train_step(config, mesh, STORED)


def eval_step(mesh: jax.sharding.Mesh, config: ConfigDict) -> jax.stages.Lowered:
    """Evaluation step on one view of a batch."""
    optimizer = _optimizer(config)
    state = abstract_state(lambda: create_state(config, optimizer), mesh)
    step: Any = jit_eval_step(_define(config, mesh), config, mesh)
    return step.lower(state.params, state.batch_stats, abstract_batch(config, STORED), View())


def textbook(mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Training step of the baseline, on as many images as a batch has frames."""
    step, state = make_step(CLASSES, jnp.bfloat16)
    images = jax.ShapeDtypeStruct((CLIPS * FRAMES, SIDE, SIDE, 3), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((CLIPS * FRAMES,), jnp.int32)
    return jax.jit(step, donate_argnums=0).lower(*_whole((state, images, labels), mesh))


def layer(
    mesh: jax.sharding.Mesh,
    transform: str,
    channels: int,
    side: int,
    gradients: bool,
    implementation: str | None = None,
) -> jax.stages.Lowered:
    """One layer as in the network: forward, or the gradients of input and parameters."""
    config = make_config(**{"model.transform": transform, "model.batch_norm_clips": 0})
    device = mesh.devices.flat[0]
    config.model.implementation = implementation or ops.preferred(device)

    def make() -> Transform:
        factory = transform_factory(config.model, nnx.Rngs(0))
        return factory(channels) if factory else _convolution(config.model, channels)

    graph, params = nnx.split(nnx.eval_shape(make))

    def forward(params: nnx.State, x: jax.Array) -> jax.Array:
        module: Any = nnx.merge(graph, params, copy=True)  # BatchNorm updates its running statistics
        return module(x)

    def loss(params: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(forward(params, x).astype(jnp.float32)))

    x = jax.ShapeDtypeStruct((CLIPS, FRAMES, side, side, channels), jnp.bfloat16)
    function = jax.grad(loss, argnums=(0, 1)) if gradients else forward
    return jax.jit(function, compiler_options=ops.compiler_options(device.platform)).lower(*_whole((params, x), mesh))


def _convolution(config: ConfigDict, channels: int) -> SpatialConv:
    settings: dict[str, Any] = {"dtype": jnp.dtype(config.dtype), "implementation": config.implementation}
    return SpatialConv(channels, channels, 3, **settings, rngs=nnx.Rngs(0))


def train_input(mesh: jax.sharding.Mesh, config: ConfigDict) -> jax.stages.Lowered:
    """Input processing in training: crop, resize, flip, normalise."""
    return jax.jit(make_augment(config, ())).lower(_whole(abstract_batch(config, STORED), mesh))


def eval_input(mesh: jax.sharding.Mesh, config: ConfigDict) -> jax.stages.Lowered:
    """Input processing in evaluation."""
    crop = functools.partial(square_crop, image_size=SIDE, eval_crop=config.data.eval_crop)
    frames = abstract_batch(config, STORED)["frames"]
    return jax.jit(crop).lower(*_whole((frames, jax.ShapeDtypeStruct((), jnp.int32)), mesh))


def programs(chip: Chip) -> dict[str, tuple[Lower, Sequence[int]]]:
    """All programs by name, each with the shape of its mesh of chips."""
    one, pod = (1,), PODS[chip.platform]
    number = int(np.prod(pod))
    found: dict[str, tuple[Lower, Sequence[int]]] = {"textbook ResNet-50": (textbook, one)}

    def add(name: str, function: Callable[..., jax.stages.Lowered], *args: Any, chips: Sequence[int] = one) -> None:
        found[name] = functools.partial(_call, function, args), chips

    for transform in ("conv2d", "rsa"):
        add(f"update, {transform}", update, make_config(**{"model.transform": transform}))
    for side, channels, _ in STAGES:
        add(f"RSA layer {side}² x {channels}, forward", layer, "rsa", channels, side, False)
        add(f"RSA layer {side}² x {channels}, gradients", layer, "rsa", channels, side, True)
    if chip.platform == "cuda":
        add("update, rsa, kernels", update, make_config(**{"model.implementation": "gpu"}))
        for side, channels, _ in STAGES:
            add(f"RSA layer {side}² x {channels}, forward, kernels", layer, "rsa", channels, side, False, "gpu")
            add(f"RSA layer {side}² x {channels}, gradients, kernels", layer, "rsa", channels, side, True, "gpu")
    side, channels, _ = STAGES[1]
    for transform in TRANSFORMS:
        add(f"layer {side}² x {channels}, gradients, {transform}", layer, transform, channels, side, True)
    # Stem and first stage: a network that compiles in a minute.
    small = {"model.stage_sizes": (3,), "model.transform_blocks": ((2,),)}
    variants: dict[str, dict[str, Any]] = {
        "as it is": {},
        "float32": {"model.dtype": "float32"},
        "remat": {"model.remat": True},
        "accumulation of 2": {"optimizer.accumulation": 2},
        "BatchNorm of 4 clips": {"model.batch_norm_clips": 4},
    }
    for name, fields in variants.items():
        add(f"first stage, rsa, {name}", update, make_config(**small, **fields))
    add("input, training", train_input, make_config())
    add("input, evaluation", eval_input, make_config())
    for transform in ("conv2d", "rsa"):
        add(f"evaluation, {transform}", eval_step, make_config(**{"model.transform": transform}))
    for transform in ("conv2d", "rsa"):
        fields = {"model.transform": transform, "model.batch_norm_clips": CLIPS}
        add(f"step, {transform}", train_step, make_config(**fields))
        several = make_config(**fields, batch_size=CLIPS * number)
        add(f"step, {transform}, {number} chips, batch {CLIPS * number}", train_step, several, chips=pod)
    if chip.platform == "cuda":
        several.model.implementation = "gpu"
        add(f"step, rsa, kernels, {number} chips, batch {CLIPS * number}", train_step, several, chips=pod)
    return found


def _call(function: Callable[..., jax.stages.Lowered], args: tuple, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    return function(mesh, *args)


def _whole(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh))

    return jax.tree.map(place, tree)


def _define(config: ConfigDict, mesh: jax.sharding.Mesh) -> ModelDefinition:
    return define_model(config.model, mesh.devices.flat[0])


def _optimizer(config: ConfigDict) -> optax.GradientTransformation:
    return make_optimizer(config.optimizer, lambda step: 0.1)


def measure(chip: Chip, lower: Lower, shape: Sequence[int]) -> dict[str, Any]:
    """Cost of a program, or the error if it does not fit into memory."""
    try:
        cost = compile_for(chip, lower(chip.mesh(shape)))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"error": str(error).splitlines()[0]}
    return _plain(cost)


def _plain(cost: Cost) -> dict[str, Any]:
    fields = {field.name: getattr(cost, field.name) for field in dataclasses.fields(cost)}
    return fields | {name: [part._asdict() for part in fields[name]] for name in ("collectives", "operations")}


def compilers(chip: Chip) -> str:
    """Versions of the packages that compile for the chip."""
    packages = ("jax", "jaxlib", "libtpu" if chip.platform == "tpu" else "jax-cuda13-pjrt")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def write(chip: Chip, versions: str, results: Mapping[str, Any]) -> None:
    """Writes the results as JSON and as tables."""
    estimate = "ms, estimated" if chip.clock else "ms at the memory's peak"
    header = ["", estimate, "of textbook", "temporary MiB", "of textbook", "total GiB", "traffic GB", "TFLOP"]
    header.append("compiled, s")
    peer = results.get("textbook ResNet-50", {})
    rows, exchanges, operations = [], [], []
    for name, cost in results.items():
        if "error" in cost:
            rows.append([name, "does not fit", *"-------"])
            continue
        ratios = ["-", "-"]
        if name.startswith(("textbook", "update")) and peer:
            ratios = [cost["seconds"] / peer["seconds"], cost["temporary"] / peer["temporary"]]
        flops = cost["flops"] / 1e12 or "-"
        row = [name, 1e3 * cost["seconds"], ratios[0], cost["temporary"] / MIB, ratios[1], cost["total"] / GIB]
        rows.append([*row, cost["traffic"] / 1e9, flops, cost["compilation"]])
        exchanges += [[name, part["kind"], part["number"], part["bytes"] / MIB] for part in cost["collectives"]]
        if name in ("textbook ResNet-50", "update, conv2d", "update, rsa"):
            for part in cost["operations"]:
                amount = 1e3 * part["cycles"] / chip.clock if chip.clock else part["traffic"] / 1e9
                operations.append([name, amount, part["kind"], f"`{part['result'][:60]}`", f"`{part['source'][-60:]}`"])
    title = f"{chip.name}, bfloat16, {CLIPS} clips of {FRAMES} x {SIDE}² unless noted"
    unit = "ms" if chip.clock else "GB"
    parts = [f"{title}\n\n{table(header, rows)}"]
    if exchanges:
        parts.append(f"Exchanges between chips\n\n{table(['', 'kind', 'number', 'MiB'], exchanges)}")
    parts.append(f"Most expensive operations\n\n{table(['', unit, 'kind', 'result', 'from'], operations)}")
    text = "\n\n".join([*parts, f"By the compilers of {versions}; nothing was run."])
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"accelerators_{chip.name}"
    stem.with_suffix(".json").write_text(json.dumps({"versions": versions, "results": results}, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles and reports."""
    parser = argparse.ArgumentParser("benchmarks.accelerators", description=__doc__)
    parser.add_argument("--chip", choices=list(CHIPS), required=True)
    parser.add_argument("--only", nargs="+", default=[""], help="only programs whose names start with one of these")
    parser.add_argument("--again", action="store_true", help="recompile programs that already have a result")
    args = parser.parse_args(argv)
    chip = CHIPS[args.chip]
    path = RESULTS / f"accelerators_{chip.name}.json"
    stored, versions = json.loads(path.read_text()) if path.exists() else {}, compilers(chip)
    known = stored["results"] if stored.get("versions") == versions else {}
    todo = programs(chip)
    for name, (lower, shape) in todo.items():
        if name.startswith(tuple(args.only)) and (args.again or name not in known):
            known[name] = measure(chip, lower, shape)
            figures = {key: value for key, value in known[name].items() if key not in ("operations", "collectives")}
            print(f"{name}: {figures}", flush=True)
            write(chip, versions, {name: known[name] for name in todo if name in known})


if __name__ == "__main__":
    main()
