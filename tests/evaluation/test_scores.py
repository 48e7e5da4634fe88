"""Metrics against accuracy and loss computed by hand; averages over views; the file of scores."""

import numpy as np
import pytest

from rsa_jax.evaluation.scores import (
    Scores,
    ScoresError,
    average_probabilities,
    average_views,
    load_scores,
    log_softmax,
    save_scores,
)

RNG = np.random.default_rng(0)


def softmax(logits):
    exponentials = np.exp(np.asarray(logits, np.float64))
    return exponentials / exponentials.sum(-1, keepdims=True)


def make_scores(log_probabilities, label, **changes):
    count, classes = np.shape(log_probabilities)
    fields = {
        "ids": [f"video {i}" for i in range(count)],
        "class_names": [f"class {i}" for i in range(classes)],
        "origin": {"dataset": "video_folder/x", "split": "validation", "step": 3},
    }
    return Scores(np.asarray(log_probabilities), np.asarray(label), **fields | changes)


def test_metrics_by_hand():
    logits = RNG.standard_normal((3, 10)).astype(np.float32)
    label = [logits[0].argmax(), logits[1].argsort()[-5], logits[2].argsort()[-6]]
    metrics = make_scores(log_softmax(logits), label).metrics()
    assert metrics["num_examples"] == 3
    np.testing.assert_allclose([metrics["top1"], metrics["top5"]], [100 / 3, 200 / 3])
    np.testing.assert_allclose(metrics["loss"], -np.mean(np.log(softmax(logits)[range(3), label])), rtol=1e-12)


def test_mean_class_weighs_classes_alike_and_passes_over_empty_ones():
    predicted, label = [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]
    metrics = make_scores(log_softmax(np.eye(3)[predicted]), label).metrics()
    assert (metrics["top1"], metrics["mean_class"]) == (40.0, 62.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_ties_and_logits_that_are_not_numbers_are_wrong(value):
    metrics = make_scores(log_softmax(np.full((2, 10), value)), [0, 9]).metrics()
    assert (metrics["top1"], metrics["top5"]) == (0, 0)


def test_a_view_that_is_not_a_number_makes_its_video_wrong():
    logits = np.tile(np.eye(10)[[4]] * 5, (3, 1, 1))
    assert make_scores(average_views(logits, "probabilities"), [4]).metrics()["top1"] == 100
    logits[1, 0, 7] = np.nan
    for average in ("probabilities", "logits"):
        assert make_scores(average_views(logits, average), [4]).metrics()["top5"] == 0


def test_averages_over_views():
    logits = RNG.standard_normal((6, 4, 10)).astype(np.float32)
    mean = softmax(logits).mean(0)
    np.testing.assert_allclose(np.exp(average_views(logits, "probabilities")), mean, rtol=1e-12)
    mean = softmax(logits.astype(np.float64).mean(0))
    np.testing.assert_allclose(np.exp(average_views(logits, "logits")), mean, rtol=1e-12)
    for average in ("probabilities", "logits"):  # the average of one view is its softmax
        np.testing.assert_array_equal(average_views(logits[:1], average), log_softmax(logits[0]))


def test_large_logits_keep_their_order_and_loss():
    logits = np.array([[[1000.0, 0.0, -1000.0]]])
    metrics = make_scores(average_views(logits, "probabilities"), [1]).metrics()
    assert (metrics["top1"], metrics["loss"]) == (0, 1000)


def test_weights_count_relative_to_each_other():
    probabilities = softmax(RNG.standard_normal((2, 3, 5)))
    average = average_probabilities(np.log(probabilities), [1, 3])
    np.testing.assert_allclose(np.exp(average), (probabilities[0] + 3 * probabilities[1]) / 4, rtol=1e-12)


def test_the_file_holds_all(tmp_path):
    scores = make_scores(log_softmax(RNG.standard_normal((3, 4))), [0, 1, 3], ids=["a/b", "ü", "c"])
    save_scores(tmp_path / "scores.npz", scores)
    loaded = load_scores(tmp_path / "scores.npz")
    np.testing.assert_array_equal(loaded.log_probabilities, scores.log_probabilities)
    np.testing.assert_array_equal(loaded.label, scores.label)
    assert (loaded.ids, loaded.class_names, loaded.origin) == (scores.ids, scores.class_names, scores.origin)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_files_that_hold_no_scores_are_named(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", weight=np.ones(3))
    for name, message in [("none", "no such file"), ("text", "expected scores"), ("other", "log_probabilities")]:
        with pytest.raises(ScoresError, match=f"{name}.npz: .*{message}"):
            load_scores(tmp_path / f"{name}.npz")
