"""What the scores of a split say: accuracies with their intervals, classes, confusions."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from rsa_jax.training.scores import Scores

# Two-sided 95 % of the normal distribution.
Z = 1.959963984540054
RESAMPLES = 2000
# The most confusions that are listed of each class.
CONFUSIONS = 3


class Estimate(NamedTuple):
    """An accuracy and its 95 % interval, in percent."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """Of one class.

    Attributes:
        label: its number.
        videos: that belong to it, at least one.
        accuracy: share of them that is predicted right.
        confusions: other classes that they are taken for and how many of them, most first.
    """

    label: int
    videos: int
    accuracy: Estimate
    confusions: list[tuple[int, int]]


class Pair(NamedTuple):
    """Videos of a class that are taken for another one.

    Attributes:
        label: their class.
        predicted: the other one.
        videos: how many.
        share: of all videos of the class, in percent.
        example: position in the split of the one that the network is most sure of.
    """

    label: int
    predicted: int
    videos: int
    share: float
    example: int


def wilson(right: Float[ArrayLike, "*N"], videos: Float[ArrayLike, "*N"]) -> Estimate:
    """Share of successes with Wilson's score interval (1927), which stays within 0 to 100 % for the smallest samples.

    Args:
        right: successes.
        videos: trials, at least one.
    """
    n, share = np.asarray(videos, np.float64), np.asarray(right, np.float64) / np.asarray(videos)
    centre = share + Z**2 / (2 * n)
    half = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = ((centre + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
    return Estimate(*(np.clip(100 * value, 0, 100) for value in (share, low, high)))


def bootstrap_class_mean(right: Int[np.ndarray, " C"], videos: Int[np.ndarray, " C"]) -> Estimate:
    """Mean of the classes' accuracies with a percentile bootstrap interval: videos are drawn anew within each class.

    Args:
        right: videos predicted right, by class.
        videos: of each class, at least one.
    """
    rng = np.random.default_rng(0)
    means = np.mean(rng.binomial(videos, right / videos, (RESAMPLES, len(videos))) / videos, axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(*(float(100 * value) for value in (np.mean(right / videos), low, high)))


def predictions(scores: Scores) -> Int[np.ndarray, " N"]:
    """The class of highest probability of each video; -1 where several are equal or a score is no number."""
    largest = scores.log_probabilities.max(axis=1, keepdims=True)  # not a number if one of them is none
    return np.where(
        np.sum(scores.log_probabilities == largest, axis=1) == 1, scores.log_probabilities.argmax(axis=1), -1
    )


def confusion_matrix(
    label: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, "K K"]:
    """Videos by class (row) and prediction (column); those without a prediction are left out."""
    known = predicted >= 0
    cells = np.bincount(label[known] * classes + predicted[known], minlength=classes * classes)
    return cells.reshape(classes, classes)


def class_results(label: Int[np.ndarray, " N"], matrix: Int[np.ndarray, "K K"]) -> list[ClassResult]:
    """Of every class that has videos, lowest accuracy first.

    Args:
        label: of every video.
        matrix: of `confusion_matrix`.
    """
    videos = np.bincount(label, minlength=len(matrix))
    results = []
    for c in np.flatnonzero(videos):
        others = matrix[c].copy()
        others[c] = 0
        most = [int(other) for other in np.argsort(-others, kind="stable")[:CONFUSIONS] if others[other]]
        accuracy = Estimate(*map(float, wilson(matrix[c, c], videos[c])))
        results.append(ClassResult(int(c), int(videos[c]), accuracy, [(other, int(others[other])) for other in most]))
    return sorted(results, key=lambda result: result.accuracy.value)


def confused_pairs(
    scores: Scores, predicted: Int[np.ndarray, " N"], matrix: Int[np.ndarray, "K K"], most: int
) -> list[Pair]:
    """The pairs of a class and another one that most of its videos are taken for, at most so many.

    Args:
        scores: of the videos.
        predicted: of `predictions`.
        matrix: of `confusion_matrix`.
        most: how many.
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
