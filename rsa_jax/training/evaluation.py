"""Accuracy over a split, in which every clip counts exactly once."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rsa_jax.training.state import ModelDefinition, PyTree
from rsa_jax.training.step import Batch, cross_entropy, make_predict

Counts = dict[str, jax.Array]


def make_eval_step(
    model: ModelDefinition, config: ConfigDict, num_classes: int
) -> Callable[[PyTree, PyTree, Batch], Counts]:
    """Sums over a batch, [classes] each: clips, and of them the right ones and the loss. Padding has mask 0."""
    predict = make_predict(model, config)

    def eval_step(params: PyTree, batch_stats: PyTree, batch: Batch) -> Counts:
        logits, label = predict(params, batch_stats, batch), batch["label"]
        # Classes not below the right one, itself left out: ties and logits that are no numbers count as wrong.
        rank = jnp.sum(~(logits < jnp.take_along_axis(logits, label[:, None], axis=1)), axis=1) - 1
        per_clip = {
            "clips": jnp.ones_like(batch["mask"]),
            "top1": rank < 1,
            "top5": rank < 5,
            "loss": cross_entropy(logits, label, smoothing=0.0),
        }
        by_class = jax.nn.one_hot(label, num_classes) * batch["mask"][:, None]
        return {name: jnp.sum(by_class * value[:, None], axis=0) for name, value in per_clip.items()}

    return eval_step


def summarize(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """`top1`, `top5` and `mean_class` in percent, mean `loss`, `num_examples`.

    Args:
        counts: sums over the split, [classes] each. A class without clips does not count in `mean_class`.
    """
    counts = {name: value.astype(np.float64) for name, value in counts.items()}
    clips = counts["clips"]
    total, present = clips.sum(), clips > 0
    return {
        "top1": float(100 * counts["top1"].sum() / total),
        "top5": float(100 * counts["top5"].sum() / total),
        "mean_class": float(100 * np.mean(counts["top1"][present] / clips[present])),
        "loss": float(counts["loss"].sum() / total),
        "num_examples": int(total),
    }


def evaluate(
    eval_step: Callable[[PyTree, PyTree, Batch], Counts],
    params: PyTree,
    batch_stats: PyTree,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Runs a compiled `make_eval_step` over the batches and summarizes."""
    total: Counts | None = None
    for batch in batches:
        counts = eval_step(params, batch_stats, batch)
        total = counts if total is None else jax.tree.map(jnp.add, total, counts)
    if total is None:
        raise ValueError("evaluation: the split holds no clip")
    return summarize(jax.device_get(total))
