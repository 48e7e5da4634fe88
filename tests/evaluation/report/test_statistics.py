"""Intervals against published values, and confusions against counts by hand."""

import numpy as np
import pytest

from rsa_jax.evaluation.report.statistics import (
    Pair,
    bootstrap_class_mean,
    class_results,
    confused_pairs,
    confusion_matrix,
    predictions,
    wilson,
)
from rsa_jax.evaluation.scores import log_softmax
from tests.evaluation.test_scores import make_scores

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    # The second and third are from Newcombe, Statistics in Medicine 17 (1998), table I.
    ("right", "videos", "expected"),
    [(5, 10, (50, 23.66, 76.34)), (81, 263, (30.80, 25.53, 36.62)), (0, 20, (0, 0, 16.11)), (1, 1, (100, 20.65, 100))],
)
def test_wilson(right, videos, expected):
    np.testing.assert_allclose(wilson(right, videos), expected, atol=0.01)


def test_the_bootstrap_of_one_class_is_that_of_its_fraction():
    value, low, high = bootstrap_class_mean(np.array([300]), np.array([1000]))
    assert value == 30
    np.testing.assert_allclose([30 - low, high - 30], 196 * np.sqrt(0.3 * 0.7 / 1000), rtol=0.1)


def test_the_bootstrap_counts_classes_alike():
    assert bootstrap_class_mean(np.array([1000, 0]), np.array([1000, 1])) == (50, 50, 50)


def test_right_predictions_are_those_of_the_metrics():
    """Ties and NaN scores have no prediction and count as wrong."""
    log_probabilities = log_softmax(RNG.standard_normal((200, 4)))
    log_probabilities[:3], log_probabilities[3, 2], log_probabilities[4, :2] = 0, np.nan, 7
    scores = make_scores(log_probabilities, RNG.integers(4, size=200))
    predicted = predictions(scores)
    np.testing.assert_array_equal(np.flatnonzero(predicted < 0), [0, 1, 2, 3, 4])
    matrix = confusion_matrix(scores.label, predicted, 4)
    assert matrix.sum() == 195
    assert np.trace(matrix) == np.sum(scores.ranks() < 1) == round(2 * scores.metrics()["top1"])


# Class 0: two videos right, two taken for class 2, one for class 1. Class 1: one video, taken for class 2. Class 2: no
# videos. Class 3: two videos, both taken for class 1.
LABEL = np.array([0, 0, 0, 0, 0, 1, 3, 3])
PREDICTED = np.array([0, 0, 2, 2, 1, 2, 1, 1])


def test_classes_by_accuracy():
    results = class_results(LABEL, confusion_matrix(LABEL, PREDICTED, 4))
    assert [(it.label, it.videos, it.accuracy.value) for it in results] == [(1, 1, 0), (3, 2, 0), (0, 5, 40)]
    assert [it.confusions for it in results] == [[(2, 1)], [(1, 2)], [(2, 2), (1, 1)]]
    assert results[2].accuracy == wilson(2, 5)


def test_pairs_with_the_surest_example():
    probabilities = np.full((8, 4), 0.1)
    probabilities[range(8), PREDICTED] = [0.7, 0.7, 0.7, 0.8, 0.7, 0.7, 0.9, 0.7]
    scores = make_scores(np.log(probabilities), LABEL)
    pairs = confused_pairs(scores, predictions(scores), confusion_matrix(LABEL, PREDICTED, 4), most=3)
    assert pairs == [Pair(0, 2, 2, 40, 3), Pair(3, 1, 2, 100, 6), Pair(0, 1, 1, 20, 4)]
    right = make_scores(np.log(probabilities), PREDICTED)
    assert confused_pairs(right, PREDICTED, confusion_matrix(PREDICTED, PREDICTED, 4), most=3) == []
