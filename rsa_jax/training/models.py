"""Models without their run: into a run as its initial weights, into a workdir, and out of one."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from rsa_jax.network import TSNResNet, create_model
from rsa_jax.training.checkpoints import Checkpoints, WorkdirError, claim_workdir, read_config
from rsa_jax.training.optimizer import make_optimizer
from rsa_jax.training.state import (
    TrainState,
    abstract_state,
    create_state,
    define_model,
    make_mesh,
    merge_model,
    split_model,
)
from rsa_jax.weights import load_torch, read_state_dict
from rsa_jax.weights.state_dict import is_torchvision


def load_initial_weights(model: TSNResNet, path: Path) -> None:
    """Loads a file of weights as `config.init_from` does, in place, and logs what keeps its own initial weights.

    From torchvision, all but the classifier and the blocks with a transform; from the published code (or
    `rsa_jax.tools.convert`) all, or all but the classifier if that has another number of classes.

    Raises:
        ValueError: the file does not exist, cannot be read, or does not fit the network.
        ImportError: it is a file of PyTorch, and PyTorch is not installed.
    """
    state_dict = read_state_dict(path)
    if is_torchvision(state_dict):
        logging.info("Initial weights from %s, but for the classifier and transforms that have others.", path)
        load_torch(model, state_dict)
        return
    there = [len(value) for name, value in state_dict.items() if name.endswith("new_fc.bias")]
    here = model.fc.out_features
    other = there not in ([here], [])
    left_out = f", but for the classifier, which has {there[0]} classes there and {here} here" if other else ""
    logging.info("Initial weights from %s%s.", path, left_out)
    load_torch(model, state_dict, classifier=not other)


def blank_model(config: ConfigDict) -> TSNResNet:
    """The network that `config` (`model` of the configuration) describes, all zeros, to load weights into.

    Raises:
        ValueError: a field of the configuration is wrong.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: create_model(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state))


def save_model(model: TSNResNet, config: ConfigDict, workdir: Path, source: str) -> None:
    """Makes a workdir whose only checkpoint, of step 0, is this model.

    Args:
        model: of `config.model`.
        config: of the run that the workdir shall stand for.
        workdir: to make.
        source: where the model is from.

    Raises:
        WorkdirError: the workdir holds a run.
    """
    params, batch_stats = split_model(model)
    optimizer = make_optimizer(config.optimizer, lambda step: 0.0)
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))
    checkpoints = Checkpoints(workdir, config.checkpoint)
    try:
        if checkpoints.steps() or (workdir / "config.json").exists():
            raise WorkdirError(f"{workdir} holds a run already")
        checkpoints.save(state)
    finally:
        checkpoints.close()
    # Weights do not say which data they were trained on: what is None fits any.
    unknown = dict.fromkeys(("name", "class_names", "directional", "num_examples"))
    claim_workdir(workdir, config, unknown | {"provenance": {"weights": source}})


def load_model(workdir: Path, checkpoint: str = "best") -> TSNResNet:
    """The model of a checkpoint, in evaluation mode. The workdir says which network it is.

    Args:
        workdir: of a run.
        checkpoint: "best", "latest" or a step.

    Raises:
        WorkdirError: the workdir holds no such checkpoint.
    """
    config = read_config(workdir)
    optimizer = make_optimizer(config.optimizer, lambda step: 0.0)
    abstract = abstract_state(functools.partial(create_state, config, optimizer), make_mesh())
    checkpoints = Checkpoints(workdir, config.checkpoint)
    try:
        state = checkpoints.restore(abstract, checkpoints.find(checkpoint))
    finally:
        checkpoints.close()
    return merge_model(define_model(config.model).eval, state.params, state.batch_stats)
