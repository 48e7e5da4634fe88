"""From batches to scores, with given logits in place of a network's."""

import numpy as np
import pytest

from rsa_jax.evaluation.evaluator import evaluate
from rsa_jax.evaluation.scores import average_views
from rsa_jax.evaluation.views import View, Views
from rsa_jax.training.mesh import make_mesh


def eval_step(params, batch_stats, batch, view):
    """Logits of a video: its "frames" plus a term that depends on the view."""
    videos = {name: batch[name] for name in ("index", "label", "mask")}
    return videos | {"logits": batch["frames"] + view.clip * 0.5 + (view.place - 1) * np.arange(4)}


def batches(logits, label, batch_size):
    for start in range(0, len(label), batch_size):
        index = np.minimum(np.arange(start, start + batch_size), len(label) - 1)
        yield {
            "frames": logits[index],
            "label": label[index],
            "index": index.astype(np.int32),
            "mask": (np.arange(start, start + batch_size) < len(label)).astype(np.float32),
            "id": np.array([b"%d" % i * (i + 1) for i in index], object),
        }


@pytest.mark.parametrize("batch_size", [1, 3, 5, 7])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_every_video_counts_once_with_the_mean_of_its_views(batch_size, average):
    rng = np.random.default_rng(0)
    logits, label = rng.standard_normal((5, 4)).astype(np.float32), np.arange(5, dtype=np.int32) % 4
    views = Views(2, 3, average)
    given = batches(logits, label, batch_size)
    log_probabilities, labels, ids = evaluate(eval_step, None, None, given, make_mesh(), views)
    np.testing.assert_array_equal(labels, label)
    assert ids == ["0", "11", "222", "3333", "44444"]
    each = [logits + clip * 0.5 + (place - 1) * np.arange(4) for clip in range(2) for place in range(3)]
    np.testing.assert_allclose(log_probabilities, average_views(np.stack(each), average), rtol=1e-5)


def test_views():
    assert Views().each() == [View(0, 1)]
    assert Views(3, 1).each() == [View(0, 1), View(1, 1), View(2, 1)]
    assert Views(2, 3).each() == [View(clip, place) for clip in range(2) for place in range(3)]


def test_a_split_without_videos_is_an_error():
    with pytest.raises(ValueError, match="holds no video"):
        evaluate(eval_step, None, None, [], make_mesh(), Views())
