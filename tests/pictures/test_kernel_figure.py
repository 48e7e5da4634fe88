"""Figures of kernels: what they show, and that it fits."""

import numpy as np
import pytest
from PIL import Image

from rsa_jax.pictures.kernel_figure import GAP, NAMES, Panel, draw_kernels, similarity


def panel(kernel_size, **kernels):
    return Panel(np.zeros((3, 20, 20, 3), np.uint8), (3, 2, 2), (0, 1, 0), kernel_size, kernels)


def test_what_lies_outside_of_the_clip():
    inside = panel((3, 3, 1)).inside()
    expected = np.zeros((3, 3, 1), bool)
    expected[1:, :2] = True
    np.testing.assert_array_equal(inside, expected)
    outside = np.where(inside, [[[1.0]], [[-3.0]], [[2.0]]], 100)[None]
    one, other = panel((3, 3, 1), basic=outside), panel((3, 3, 1), basic=-np.abs(outside))
    assert one.largest("basic") == 3
    assert similarity("basic", one, other) == pytest.approx((9 - 4) / (9 + 4))
    assert panel(None).window == ((0, 2), (0, 1), (0, 1))
    assert panel(None).inside().all()


def share(path, colour):
    """Fraction of the figure's pixels that have a colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.mean(np.all(np.abs(pixels - colour) < 40, axis=-1))


@pytest.mark.parametrize("queries", [1, 8])
@pytest.mark.parametrize("kernel_size", [(3, 3, 1), None])
def test_the_picture(tmp_path, kernel_size, queries):
    shape = (queries, *(kernel_size or (3, 2, 2)))
    some = panel(kernel_size, basic=np.full(shape, 0.5), attention=np.zeros(shape))
    out = tmp_path / "kernels.png"
    draw_kernels(["first", "second $^$"], [some, some], out)
    # The outlines of query and window, and the colours of the largest and the smallest value.
    yellow, red, largest, smallest = (share(out, c) for c in ((255, 255, 0), (255, 0, 0), (103, 0, 31), (5, 48, 97)))
    assert yellow > red > 0
    assert largest > 2 * smallest > 0
    draw_kernels(["nothing"], [panel(kernel_size, basic=np.zeros(shape))], out)


def test_every_row_has_its_own_scale(tmp_path):
    """Tiny kernels are drawn as strongly as huge ones; a clip and its reverse share the scale of each row."""
    ones, out = np.ones((2, 3, 3, 3)), tmp_path / "kernels.png"

    def dark(*networks):
        first, *further = ([panel((3, 3, 3), basic=a * ones), panel((3, 3, 3), basic=b * ones)] for a, b in networks)
        draw_kernels(["clip", "backwards"], first, out, further)
        return share(out, (103, 0, 31))

    assert dark((1e-3, 1e-3), (1e3, 1e3)) == pytest.approx(dark((1e3, 1e3), (1e3, 1e3)), rel=0.01)
    assert dark((1e-3, 1e3), (1e3, 1e3)) < 0.8 * dark((1e3, 1e3), (1e3, 1e3))
    one = panel((3, 3, 3), basic=1e-3 * ones, relational=1e3 * ones)
    same = panel((3, 3, 3), basic=1e3 * ones, relational=1e3 * ones)
    shares = []
    for each in (one, same):
        draw_kernels(["clip"], [each], out)
        shares.append(share(out, (103, 0, 31)))
    assert shares[0] == pytest.approx(shares[1], rel=0.01)


def test_rows_of_all_shapes_and_long_names(tmp_path):
    """Nothing extends beyond the figure, and no caption overlaps the kernels."""
    out = tmp_path / "kernels.png"
    shapes = [((3, 3, 1), 8), (None, 2), ((1, 9, 1), 6), ((3, 1, 5), 1)]
    networks = [
        [panel(size, basic=-1e-12 * np.ones((queries, *(size or (3, 2, 2)))))._replace(network="W" * 40)]
        for size, queries in shapes
    ]
    draw_kernels(["W" * 300 + "\n" + "some words " * 30], networks[0], out, networks[1:])
    pixels = np.asarray(Image.open(out).convert("RGB"))
    edges = (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:])
    assert all(np.all(edge == 255) for edge in edges)
    titles = round(150 * (GAP + 7 * 0.14))
    assert np.all(pixels[titles:, round(150 * (NAMES - GAP / 2))] == 255)
