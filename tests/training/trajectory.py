"""The published training run on the recipe's clips, with this project's own step.

A separate program, because float64 has to be enabled before JAX starts:
JAX_ENABLE_X64=1 python -m tests.training.trajectory float64 OUT.npz
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from rsa_jax.settings import default_config
from rsa_jax.training.models import blank_model
from rsa_jax.training.optimizer import make_optimizer, make_schedule
from rsa_jax.training.state import TrainState, define_model, merge_model, split_model
from rsa_jax.training.step import make_update
from rsa_jax.weights import load_torch, to_torch
from tests import golden_files

PUBLISHED = golden_files.read("trajectory")


def make_config(dtype):
    """The run's settings, from the file of reference outputs."""
    config = default_config()
    config.batch_size, config.epochs = PUBLISHED["batch"], PUBLISHED["epochs"]
    config.label_smoothing = PUBLISHED["label_smoothing"]
    config.model.dtype, config.model.num_classes = dtype, PUBLISHED["num_classes"]
    config.model.dropout, config.model.stochastic_depth = PUBLISHED["dropout"], PUBLISHED["stochastic_depth"]
    config.optimizer.learning_rate, config.optimizer.final_ratio = PUBLISHED["base_lr"], PUBLISHED["final_lr_ratio"]
    config.optimizer.warmup_epochs = PUBLISHED["warmup_epochs"]
    config.optimizer.momentum, config.optimizer.nesterov = PUBLISHED["momentum"], PUBLISHED["nesterov"]
    config.optimizer.weight_decay = PUBLISHED["weight_decay"]
    config.optimizer.gradient_clip = PUBLISHED["gradient_clip"]
    return config


def run(dtype):
    """Losses, learning rates and gradient norms of all steps; the final state dict and logits."""
    config = make_config(dtype)
    steps_per_epoch, side = PUBLISHED["steps_per_epoch"], PUBLISHED["size"]
    schedule = make_schedule(config.optimizer, epochs=config.epochs, steps_per_epoch=steps_per_epoch)
    optimizer = make_optimizer(config.optimizer, schedule)
    definition, model = define_model(config.model), blank_model(config.model)
    shapes = golden_files.read("state_dict_shapes")
    shapes |= {"new_fc.weight": [config.model.num_classes, 2048, 1], "new_fc.bias": [config.model.num_classes]}
    load_torch(model, golden_files.state_dict(shapes))
    params, batch_stats = split_model(model)
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))
    update = jax.jit(make_update(definition, optimizer, config))
    shape = (config.batch_size, PUBLISHED["num_frames"], side, side, 3)
    losses, rates, norms = [], [], []
    for step in range(config.epochs * steps_per_epoch):
        name = f"train.{step // steps_per_epoch}.{step % steps_per_epoch}"
        clips = jnp.asarray(golden_files.recipe.clips(name, shape), dtype)
        label = jnp.asarray(golden_files.recipe.labels(name, config.batch_size, config.model.num_classes))
        rates.append(schedule(state.step))
        state, metrics = update(state, clips, label)
        losses.append(metrics["loss"])
        norms.append(metrics["gradient_norm"])
    model = merge_model(definition.eval, state.params, state.batch_stats)
    logits = jax.jit(lambda x: model(x))(jnp.asarray(golden_files.recipe.clips("train.eval", (2, *shape[1:])), dtype))
    results = {"losses": losses, "learning_rates": rates, "gradient_norms": norms, "eval_logits": logits}
    return results | {f"final/{name}": array for name, array in to_torch(model).items()}


if __name__ == "__main__":
    np.savez(sys.argv[2], **{name: np.asarray(value) for name, value in run(sys.argv[1]).items()})
