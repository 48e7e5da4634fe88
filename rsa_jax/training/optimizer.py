"""Stochastic gradient descent and its learning rate, as published."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from ml_collections import ConfigDict

# Parameters without weight decay: those of BatchNorm, and biases.
NO_DECAY = ("scale", "bias")


def make_schedule(config: ConfigDict, *, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then a cosine.

    With `config.schedule` "epoch" it is constant in an epoch, at its value for the end of that epoch: the
    published runs start at 0.00402 and end at 0.00002. With "step" it moves with every step.

    Args:
        config: `optimizer` of the configuration.
        epochs: of the whole run.
        steps_per_epoch: to count them.

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
    """Clipping, weight decay, momentum and learning rate, in PyTorch's order.

    Args:
        config: `optimizer` of the configuration.
        schedule: learning rate by step.
    """
    return optax.chain(
        clip_by_global_norm(config.gradient_clip),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.trace(config.momentum, nesterov=config.nesterov),
        optax.scale_by_learning_rate(schedule),
    )


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """PyTorch's clipping: gradients times min(1, max_norm / (norm + 1e-6)). Optax has no 1e-6."""

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decay_mask(params: optax.Params) -> optax.Params:
    """True where weight decay applies: everywhere but in BatchNorm and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NO_DECAY, params)
