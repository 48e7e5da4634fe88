"""Statistics of the scores of a split: accuracies with their intervals, classes, confusions."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.stats import binomtest

from rsa_jax.evaluation.scores import Scores

# Number of bootstrap samples.
RESAMPLES = 2000
# Maximum number of confusions listed per class.
CONFUSIONS = 3


class Estimate(NamedTuple):
    """An accuracy and its 95 % interval, in percent."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """Results of one class.

    Attributes:
        label: number of the class.
        videos: number of its videos, at least one.
        accuracy: fraction of its videos that are predicted correctly.
        confusions: wrongly predicted classes and their numbers of videos, most frequent first.
    """

    label: int
    videos: int
    accuracy: Estimate
    confusions: list[tuple[int, int]]


class Pair(NamedTuple):
    """Videos of one class that are predicted as another.

    Attributes:
        label: true class.
        predicted: predicted class.
        videos: number of such videos.
        percent: their percentage of all videos of the class.
        example: index in the split of the video predicted with the highest confidence.
    """

    label: int
    predicted: int
    videos: int
    percent: float
    example: int


def wilson(right: int, videos: int) -> Estimate:
    """Success rate with Wilson's score interval (1927), which stays within 0 to 100 % even for the smallest samples.

    Args:
        right: number of successes.
        videos: number of trials, at least one.
    """
    interval = binomtest(right, videos).proportion_ci(method="wilson")
    return Estimate(*(float(100 * value) for value in (right / videos, interval.low, interval.high)))


def bootstrap_class_mean(right: Int[np.ndarray, " C"], videos: Int[np.ndarray, " C"]) -> Estimate:
    """Mean of the class accuracies with a percentile bootstrap interval. Videos are resampled within each class.

    Args:
        right: number of correctly predicted videos of each class.
        videos: number of videos of each class, at least one.
    """
    rng = np.random.default_rng(0)
    means = np.mean(rng.binomial(videos, right / videos, (RESAMPLES, len(videos))) / videos, axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(*(float(100 * value) for value in (np.mean(right / videos), low, high)))


def predictions(scores: Scores) -> Int[np.ndarray, " N"]:
    """Most probable class of each video; -1 where several are tied or a score is NaN."""
    largest = scores.log_probabilities.max(axis=1, keepdims=True)  # NaN if any score is NaN
    return np.where(
        np.sum(scores.log_probabilities == largest, axis=1) == 1, scores.log_probabilities.argmax(axis=1), -1
    )


def confusion_matrix(
    label: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, "K K"]:
    """Number of videos by class (row) and prediction (column); videos without a prediction are left out."""
    known = predicted >= 0
    cells = np.bincount(label[known] * classes + predicted[known], minlength=classes * classes)
    return cells.reshape(classes, classes)


def class_results(label: Int[np.ndarray, " N"], matrix: Int[np.ndarray, "K K"]) -> list[ClassResult]:
    """Results of every class that has videos, lowest accuracy first.

    Args:
        label: label of every video.
        matrix: output of `confusion_matrix`.
    """
    videos = np.bincount(label, minlength=len(matrix))
    results = []
    for c in np.flatnonzero(videos):
        others = matrix[c].copy()
        others[c] = 0
        most = [int(other) for other in np.argsort(-others, kind="stable")[:CONFUSIONS] if others[other]]
        confusions = [(other, int(others[other])) for other in most]
        results.append(ClassResult(int(c), int(videos[c]), wilson(int(matrix[c, c]), int(videos[c])), confusions))
    return sorted(results, key=lambda result: result.accuracy.value)


def confused_pairs(
    scores: Scores, predicted: Int[np.ndarray, " N"], matrix: Int[np.ndarray, "K K"], most: int
) -> list[Pair]:
    """Pairs of a class and a wrong prediction with the most videos, most frequent first.

    Args:
        scores: scores of the videos.
        predicted: output of `predictions`.
        matrix: output of `confusion_matrix`.
        most: maximum number of pairs.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    pairs = []
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        c, other = divmod(int(cell), len(matrix))
        if count := int(wrong[c, other]):
            videos = np.flatnonzero((scores.label == c) & (predicted == other))
            surest = int(videos[np.argmax(scores.log_probabilities[videos, other])])
            pairs.append(Pair(c, other, count, 100 * count / np.sum(scores.label == c), surest))
    return pairs
