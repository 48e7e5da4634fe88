"""Stochastic gradient descent and its learning rate, as published."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from ml_collections import ConfigDict

# Parameters without weight decay: those of BatchNorm, and biases.
NO_DECAY = ("scale", "bias")


def make_schedule(config: ConfigDict, *, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then cosine decay.

    With `config.schedule` "epoch" it is constant within an epoch, at its value for the end of that epoch: the
    published runs start at 0.00402 and end at 0.00002. With "step" it changes with every step.

    Args:
        config: `optimizer` section of the configuration.
        epochs: number of epochs of the whole run.
        steps_per_epoch: number of steps per epoch.

    Raises:
        ValueError: warm-up takes the whole run, or the schedule is unknown.
    """
    if config.schedule not in ("epoch", "step"):
        raise ValueError(f"optimizer.schedule: expected 'epoch' or 'step', got {config.schedule!r}")
    if not 0 <= config.warmup_epochs < epochs:
        raise ValueError(f"optimizer.warmup_epochs: expected 0 to {epochs - 1}, got {config.warmup_epochs}")
    final = config.learning_rate * config.final_ratio
    by_epoch = optax.warmup_cosine_decay_schedule(
        final, config.learning_rate, config.warmup_epochs, epochs, end_value=final
    )

    def at_end_of_epoch(step: ArrayLike) -> Float[Array, ""]:
        return by_epoch(jnp.asarray(jnp.asarray(step) // steps_per_epoch + 1, float))

    def at_end_of_step(step: ArrayLike) -> Float[Array, ""]:
        return by_epoch((jnp.asarray(step, float) + 1) / steps_per_epoch)

    return at_end_of_epoch if config.schedule == "epoch" else at_end_of_step


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Gradient clipping, weight decay, momentum and learning rate, in PyTorch's order.

    Args:
        config: `optimizer` section of the configuration.
        schedule: learning rate by step.
    """
    return optax.chain(
        clip_by_global_norm(config.gradient_clip),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.trace(config.momentum, nesterov=config.nesterov),
        optax.scale_by_learning_rate(schedule),
    )


def compare_rate(config: ConfigDict, batch_size: int) -> str:
    """Comparison of the learning rate per clip with the recipe's, as text for the log.

    Args:
        config: `optimizer` section of the configuration.
        batch_size: clips per step.
    """
    rate, recipe_rate, recipe_batch = config.learning_rate, config.recipe_learning_rate, config.recipe_batch_size
    if (rate, batch_size) == (recipe_rate, recipe_batch):
        return f"Learning rate {rate:g} for batches of {batch_size} clips, as in the recipe."
    ratio = batch_size / recipe_batch
    return (
        f"Learning rate {rate:g} for batches of {batch_size} clips; the recipe has {recipe_rate:g} for {recipe_batch}. "
        f"The rate per clip is {rate / recipe_rate / ratio:.3g} times the recipe's. "
        f"For this batch, the linear rule gives a learning rate of {recipe_rate * ratio:.3g}, "
        f"and the square-root rule, which the authors name, {recipe_rate * ratio**0.5:.3g}."
    )


def make_restart(
    config: ConfigDict,
) -> Callable[[optax.Params, optax.OptState], tuple[optax.Params, optax.OptState, Float[Array, ""]]]:
    """The zero-gradient step with which the published code begins every epoch but the first.

    Its loop resets the learning rate to the base rate and steps the optimizer before the schedule sets the rate of the
    epoch. Gradients are zero then (PyTorch 1.6), so weight decay and the momentum of the previous epoch move the
    parameters, at the base rate. Biases of layers other than BatchNorm move at twice the base rate: their parameter
    group has this factor, which the schedule overwrites in all other steps.

    Args:
        config: `optimizer` section of the configuration.

    Returns:
        A function from parameters and optimizer state to both after the step and the norm of the update.
    """
    at_base_rate = make_optimizer(config, lambda step: config.learning_rate)

    def restart(
        params: optax.Params, opt_state: optax.OptState
    ) -> tuple[optax.Params, optax.OptState, Float[Array, ""]]:
        updates, after = at_base_rate.update(jax.tree.map(jnp.zeros_like, params), opt_state, params)
        updates = _double_biases(updates)
        *momentum, _ = after
        # Keep the schedule's state: it counts the steps of the run, and this is not one of them.
        return optax.apply_updates(params, updates), (*momentum, opt_state[-1]), optax.tree.norm(updates)

    return restart


def _double_biases(updates: Any) -> Any:
    """Doubles the updates of biases next to a kernel. BatchNorm's biases are next to a scale and stay as they are."""
    if not isinstance(updates, dict):
        return updates
    return {
        name: 2 * value if name == "bias" and "kernel" in updates else _double_biases(value)
        for name, value in updates.items()
    }


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """PyTorch's gradient clipping: gradients times min(1, max_norm / (norm + 1e-6)). Optax omits the 1e-6."""

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decay_mask(params: optax.Params) -> optax.Params:
    """True where weight decay applies: everywhere except BatchNorm and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NO_DECAY, params)
