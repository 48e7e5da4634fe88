"""The report page is complete, well formed, safe and small."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from rsa_jax.evaluation.report import write_report
from rsa_jax.evaluation.report.images import matrix_image
from rsa_jax.evaluation.report.page import class_ticks, flatten, largest_cells
from rsa_jax.evaluation.scores import log_softmax
from tests.evaluation.test_scores import make_scores

RNG = np.random.default_rng(0)
ORIGIN = {"dataset": "video_folder/x", "split": "validation", "step": 3, "views": 1, "num_frames": 8}
VOID = {"meta", "img", "path", "polyline"}


class Page(HTMLParser):
    """Tags, text and addresses of a page; fails if tags are not closed in order."""

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.words, self.addresses, self.titles = [], [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.titles += [value for name, value in attributes if name == "title"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words += data.split()

    @property
    def text(self):
        return " ".join(self.words)


def write(path, scores, **changes):
    arguments = {
        "provenance": {"source": "/videos", "left_out": [{"id": f"clip {i}"} for i in range(9)]},
        "config": {"model": {"width": 8}, "seed": 0},
        "metrics_path": path.parent / "metrics.jsonl",
        "read_clips": lambda index: np.zeros((len(index), 8, 24, 32, 3), np.uint8),
    }
    write_report(path, scores, **arguments | changes)
    content = path.read_text()
    page = Page(content)
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not re.search(r"\b(nan|inf|None|http)\b", page.text, re.IGNORECASE)
    assert "url(" not in content
    return page


def made_scores(videos, classes, **changes):
    label = changes.pop("label", RNG.integers(classes, size=videos))
    logits = RNG.standard_normal((videos, classes)) + 2 * np.eye(classes)[label]
    return make_scores(log_softmax(logits), label, **{"origin": ORIGIN} | changes)


def test_two_classes(tmp_path):
    probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]
    scores = make_scores(np.log(probabilities), [0, 1, 1, 1], origin=ORIGIN, class_names=["to the left", "right & up"])
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    page = write(tmp_path / "report.html", scores)
    for text in (
        "Step 3 on 4 videos. 1 view of 8 frames.",
        "top-1 75.0 % 30.1 to 95.4",
        "class mean 83.3 %",
        "1 right & up taken for to the left (1) 3 66.7 (20.8 to 93.9)",
        "right & up taken for to the left : 1 video, 33.3 % of the class",
        "video 1, 60.0 % sure",
        "training, last 2.5",
        "left_out id clip 0; id clip 1; id clip 2; id clip 3; id clip 4 … 9 in all",
        "model.width 8",
    ):
        assert text in page.text
    assert "script" not in page.tags  # a matrix of a few classes needs none
    (strip,) = page.addresses
    image = Image.open(io.BytesIO(base64.b64decode(strip.partition(",")[2])))
    assert image.size == (8 * 98 - 2, 72)


def test_nothing_is_wrong(tmp_path):
    page = write(tmp_path / "report.html", make_scores(log_softmax(np.eye(3)), range(3), origin=ORIGIN))
    assert "No video is taken for another class." in page.text
    assert "this network was not trained in it" in page.text


@pytest.mark.parametrize("classes", [1, 2, 40])
def test_awkward_scores(tmp_path, classes):
    """Classes without videos, a single video, NaN scores."""
    page = write(tmp_path / "report.html", made_scores(1, classes, label=np.array([classes - 1])))
    if classes == 1:
        assert "top-1 100.0 % 20.7 to 100.0" in page.text
        return
    assert f"{classes - 1} of {classes} classes have no video" in page.text
    log_probabilities = np.full((3, classes), np.nan)
    page = write(tmp_path / "report.html", make_scores(log_probabilities, [0, 0, 0], origin=ORIGIN))
    assert "top-1 0.0 %" in page.text
    assert "loss not finite" in page.text
    assert "Videos without a prediction, which count as wrong: 3" in page.text


@pytest.mark.parametrize("classes", [3, 40])
def test_names_are_text_and_nothing_else(tmp_path, classes):
    name = "</script><script>alert('x')</script> \"quoted\" & <b>"
    # The network has more classes than the data set.
    scores = made_scores(200, classes, class_names=[name] * (classes - 1), ids=[name] * 200)
    page = write(tmp_path / "report.html", scores)
    assert f"0 {name}" in page.text
    assert f"class {classes - 1}" in page.text
    assert page.tags.count("script") == (0 if classes == 3 else 2)
    assert "b" not in page.tags
    assert set(page.titles) <= {name, "class 2"}


def test_a_large_data_set_makes_a_small_page(tmp_path):
    """As many videos and classes as Something-Something V2, and names as long."""
    names = [f"{i:03} Pretending to put something on something but not" for i in range(174)]
    clips = RNG.integers(256, size=(10, 16, 240, 320, 3), dtype=np.uint8)  # noise: the largest JPEG
    scores = made_scores(24_777, 174, class_names=names)
    page = write(tmp_path / "report.html", scores, read_clips=lambda index: clips[: len(index)])
    assert (tmp_path / "report.html").stat().st_size < 2e6
    assert all(name in page.text for name in names)
    assert "The other 154 classes" in page.text


def test_the_image_of_a_matrix():
    uri = matrix_image(np.array([[4, 0, 0], [2, 1, 1], [0, 0, 0]]))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    opacity = pixels[..., 3]
    assert (opacity == 0).tolist() == [[False, True, True], [False, False, False], [True, True, True]]
    assert opacity[0, 0] == 255 > opacity[1, 0] > opacity[1, 1] == opacity[1, 2] > 0
    assert pixels[0, 0, 2] > pixels[0, 0, 0]  # right is blue
    assert pixels[1, 0, 0] > pixels[1, 0, 2]  # wrong is orange


@pytest.mark.parametrize("classes", range(1, 40))
def test_ticks_of_a_matrix_are_classes(classes):
    ticks = class_ticks(classes)
    assert 1 <= len(ticks) <= 10
    for place, number in ticks:
        assert 0 <= number < classes
        assert place == pytest.approx(100 * (number + 0.5) / classes)


def test_cells_that_are_left_out_are_the_smallest():
    matrix = np.array([[4, 0, 1], [2, 3, 1], [0, 0, 2]])
    assert largest_cells(matrix) == {
        "cells": [[0, 0, 4], [0, 2, 1], [1, 0, 2], [1, 1, 3], [1, 2, 1], [2, 2, 2]],
        "left_out": 0,
    }
    assert largest_cells(matrix, 3) == {"cells": [[0, 0, 4], [1, 0, 2], [1, 1, 3]], "left_out": 2}


def test_fields_are_flattened():
    fields = {"a": {"b": (1, 2), "c": None}, "d": "text", "e": [{"f": 1, "g": [2]}, {"f": 3, "g": []}], "h": {}}
    expected = [("a.b", "1, 2"), ("a.c", "None"), ("d", "text"), ("e", "f 1, g 2; f 3, g ")]
    assert list(flatten(fields)) == expected
