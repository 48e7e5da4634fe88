"""Tables and plot of a study."""

import csv

from PIL import Image

from rsa_jax.costs.traced import NetworkCost
from rsa_jax.pictures.study_plot import draw_study
from rsa_jax.studies.results import Outcome, write_tables


def test_results_of_some_seeds(tmp_path):
    outcomes = [
        Outcome(
            "a",
            NetworkCost(1.5, 0.25),
            [50.0, 54.0, "diverged", 58.0],
            [80.0, 81.0, 82.0],
            [[(4, 50.0)], [(4, 54.0)], [], [(4, 58.0)]],
        ),
        Outcome("b | c", NetworkCost(1.0, 0.5), [10.0], [50.0], [[(2, 9.0), (4, 10.0)]]),
    ]
    write_tables(outcomes, tmp_path)
    draw_study(outcomes, tmp_path / "plot.png")
    table = (tmp_path / "table.md").read_text()
    assert "| a | 1.500 | 0.2500 | 54.0 | 4.0 | 81.0 | 1.0 | 50.0, 54.0, diverged, 58.0 |" in table
    assert r"| b \| c |" in table
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.reader(file))[2] == ["b | c", "1.000", "0.5000", "10.0", "", "50.0", "", "10.0"]
    width, height = Image.open(tmp_path / "plot.png").size
    assert width > height > 100
