"""Scores of videos: averages over views and models, metrics, and the file that stores them.

Imports no JAX, so tools that only combine scores start at once.
"""

import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from rsa_jax.files import complete

AVERAGES = ("probabilities", "logits")


class ScoresError(ValueError):
    """Scores that are missing, unreadable or do not fit each other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one model, or of several together, for the videos of a split.

    Attributes:
        log_probabilities: scores by video and class; logarithms, so that none rounds to 0.
        label: true classes.
        ids: names of the videos in the data set; row i is video i of the split.
        class_names: names by class; the network may have more classes.
        origin: what was evaluated and how; the fields of eval.json that are not metrics.
    """

    log_probabilities: Float[np.ndarray, "N K"]
    label: Int[np.ndarray, " N"]
    ids: Sequence[str]
    class_names: Sequence[str]
    origin: dict[str, Any]

    def ranks(self) -> Int[np.ndarray, " N"]:
        """Number of other classes that score no lower than the true class: 0 if the prediction is correct.

        Ties and NaN scores count as wrong.
        """
        own = np.take_along_axis(self.log_probabilities, self.label[:, None], axis=1)
        return np.sum(~(self.log_probabilities < own), axis=1) - 1

    def metrics(self) -> dict[str, float]:
        """`top1`, `top5` and `mean_class` in percent, mean `loss`, `num_examples`.

        `mean_class` ignores classes without videos.
        """
        rank, own = self.ranks(), np.take_along_axis(self.log_probabilities, self.label[:, None], axis=1)
        classes = [rank[self.label == label] < 1 for label in np.unique(self.label)]
        return {
            "top1": float(100 * np.mean(rank < 1)),
            "top5": float(100 * np.mean(rank < 5)),
            "mean_class": float(100 * np.mean([np.mean(right) for right in classes])),
            "loss": float(-np.mean(own)),
            "num_examples": len(self.label),
        }


def all_class_names(known: Sequence[str] | None, num_classes: int) -> list[str]:
    """A name for every class of a network: "class 12" if unknown, or if the data set has fewer classes."""
    names = list(known or [])
    return names + [f"class {label}" for label in range(len(names), num_classes)]


@np.errstate(invalid="ignore")  # non-finite logits: the metrics count them as wrong
def log_softmax(logits: Float[np.ndarray, "*N K"]) -> Float[np.ndarray, "*N K"]:
    """Log-probabilities in float64."""
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@np.errstate(invalid="ignore")
def average_probabilities(
    log_probabilities: Float[np.ndarray, "M *N K"], weights: Sequence[float] | None = None
) -> Float[np.ndarray, "*N K"]:
    """Mean of the probabilities over the first axis: logarithms in, logarithms out.

    Args:
        log_probabilities: log-probabilities of M views or models.
        weights: M positive numbers; None: equal weights.
    """
    shares = np.ones(len(log_probabilities)) if weights is None else np.array(weights)
    shares = (shares / shares.sum()).reshape(-1, *[1] * (log_probabilities.ndim - 1))
    return np.logaddexp.reduce(log_probabilities + np.log(shares), axis=0)


def average_views(logits: Float[np.ndarray, "V *N K"], average: str) -> Float[np.ndarray, "*N K"]:
    """Log-probabilities from the logits of V views.

    Args:
        logits: logits of each view.
        average: quantity to average, one of `AVERAGES`.
    """
    if average == "logits":
        return log_softmax(logits.mean(axis=0, dtype=np.float64))
    return average_probabilities(log_softmax(logits))


def save_scores(path: epath.Path, scores: Scores) -> None:
    """Writes the attributes of `Scores` to a .npz file, complete or not at all; `origin` is stored as JSON."""
    arrays = {
        "log_probabilities": scores.log_probabilities,
        "label": scores.label,
        "ids": np.array(scores.ids, np.str_),
        "class_names": np.array(scores.class_names, np.str_),
        "origin": np.array(json.dumps(scores.origin)),
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    with complete(path) as partial:
        partial.write_bytes(content.getvalue())


def load_scores(path: epath.Path) -> Scores:
    """Reads a file written by `save_scores`.

    Raises:
        ScoresError: there is no such file, or it is not a file of scores.
    """
    if not path.exists() or path.is_dir():
        raise ScoresError(f"{path}: no such file; main.py --mode eval writes it")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return Scores(
                file["log_probabilities"],
                file["label"],
                file["ids"].tolist(),
                file["class_names"].tolist(),
                json.loads(str(file["origin"])),
            )
    except Exception as error:  # damaged archives raise a dozen types of errors
        reason = f"a file without {error}" if isinstance(error, KeyError) else "a damaged file or one of another kind"
        raise ScoresError(f"{path}: expected scores of main.py --mode eval, got {reason}") from error
