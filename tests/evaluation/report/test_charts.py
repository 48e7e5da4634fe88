"""Training curves: from values to pixels."""

import json

import numpy as np
import pytest

from rsa_jax.evaluation.report.charts import POINTS, SIZE, make_charts, read_records, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 2000, [0, 500, 1000, 1500, 2000]),
        (-0.3, 1.1, [-0.5, 0, 0.5, 1, 1.5]),
        (0, 3e-5, [0, 1e-5, 2e-5, 3e-5]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (5, 5, [5, 6, 7, 8, 9, 10]),
    ],
)
def test_ticks(low, high, expected):
    np.testing.assert_allclose(ticks(low, high), expected)


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 7, "lo')
    return path


def test_charts_of_a_log(tmp_path):
    records = [{"step": step, "loss": 4 / step, "accuracy": step / 4, "learning_rate": 0.1} for step in (1, 2, 4)]
    records += [{"step": 2, "validation_loss": float("nan")}, {"step": 4, "validation_loss": 2, "validation_top1": 50}]
    loss, accuracy, rate = make_charts(read_records(write(tmp_path / "metrics.jsonl", records)))
    assert [[curve.name for curve in chart.curves] for chart in (loss, accuracy, rate)] == [
        ["training", "validation"],
        ["training", "validation"],
        ["learning rate"],
    ]
    assert [curve.last for curve in (*loss.curves, *accuracy.curves, *rate.curves)] == [1, 2, 100, 50, 0.1]
    quarter, half = SIZE.left + (SIZE.right - SIZE.left) / 4, (SIZE.top + SIZE.bottom) / 2
    points = [tuple(map(float, point.split(","))) for point in loss.curves[0].points.split()]
    assert points[:2] == [(quarter, SIZE.top), (2 * quarter - SIZE.left, half)]
    assert loss.curves[1].points == f"{float(SIZE.right)},{half}"
    assert loss.y_ticks[-1] == (SIZE.top, "4")
    assert loss.x_ticks[-1] == (SIZE.right, "4")


def test_long_logs_are_averaged(tmp_path):
    """Neighbouring values are averaged, so values that jump up and down end up in the middle."""
    records = [{"step": step, "loss": step % 2} for step in range(20_000)]
    (chart,) = make_charts(records)
    points = [tuple(map(float, point.split(","))) for point in chart.curves[0].points.split()]
    assert len(points) == POINTS
    assert np.ptp([y for _, y in points]) < 0.02 * (SIZE.bottom - SIZE.top)
    assert [text for _, text in chart.x_ticks] == ["0", "5000", "10k", "15k"]


def test_no_log_no_charts(tmp_path):
    assert make_charts(read_records(tmp_path / "metrics.jsonl")) == []
