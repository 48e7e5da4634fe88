"""Models outside of their run: blank, saved to a workdir, loaded from a workdir."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from rsa_jax.nn.network import TSNResNet, create_model
from rsa_jax.training.checkpoints import Checkpoints
from rsa_jax.training.mesh import make_mesh
from rsa_jax.training.optimizer import make_optimizer
from rsa_jax.training.state import TrainState, abstract_state, create_state, define_model, merge_model, split_model
from rsa_jax.training.workdir import WorkdirError, claim_workdir, read_config, workdir_path


def blank_model(config: ConfigDict) -> TSNResNet:
    """All-zero network of `config` (`model` section of the configuration), to load weights into.

    Raises:
        ValueError: a field of the configuration is invalid.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: create_model(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state))


def save_model(
    model: TSNResNet,
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    source: str,
    class_names: Sequence[str] | None = None,
) -> None:
    """Creates a workdir whose only checkpoint, at step 0, is this model.

    Args:
        model: network of `config.model`.
        config: run configuration to record in the workdir.
        workdir: workdir to create.
        source: origin of the weights.
        class_names: class names in the order of the model's classes; None if unknown.

    Raises:
        WorkdirError: the workdir already holds a run.
    """
    workdir = workdir_path(workdir)
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
    # The training data of the weights is unknown: None matches any data set.
    unknown = dict.fromkeys(("name", "flip_pairs", "num_examples"))
    names = None if class_names is None else list(class_names)
    claim_workdir(workdir, config, unknown | {"class_names": names, "provenance": {"weights": source}})


def restore_state(workdir: epath.PathLike, checkpoint: str) -> tuple[ConfigDict, TrainState]:
    """The recorded configuration of a run, and its state at a checkpoint, replicated on all devices.

    Args:
        workdir: workdir of a run.
        checkpoint: "best", "latest" or a step.

    Raises:
        WorkdirError: the workdir holds no such checkpoint.
    """
    workdir = workdir_path(workdir)
    config = read_config(workdir)
    if not (workdir / "checkpoints").is_dir():  # the manager would create the directory
        raise WorkdirError(f"{workdir} holds no checkpoint; train first")
    optimizer = make_optimizer(config.optimizer, lambda step: 0.0)
    abstract = abstract_state(functools.partial(create_state, config, optimizer), make_mesh())
    checkpoints = Checkpoints(workdir, config.checkpoint)
    try:
        return config, checkpoints.restore(abstract, checkpoints.find(checkpoint))
    finally:
        checkpoints.close()


def load_model(workdir: epath.PathLike, checkpoint: str = "best") -> TSNResNet:
    """The model of a checkpoint, in evaluation mode. The workdir's configuration defines the network.

    The arguments and errors are those of `restore_state`.
    """
    config, state = restore_state(workdir, checkpoint)
    return merge_model(define_model(config.model, jax.devices()[0]).eval, state.params, state.batch_stats)
