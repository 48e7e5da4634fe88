"""Files: complete or absent, and JSON that every reader accepts."""

import json
import math

import pytest

from rsa_jax.files import complete, write_json


def test_an_interrupted_write_leaves_the_former_file(tmp_path):
    (tmp_path / "a").write_text("former")
    with pytest.raises(KeyboardInterrupt), complete(tmp_path / "a") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "former")]


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"loss": math.nan, "list": [1.5, -math.inf], "step": 3})

    def refuse(text):
        raise ValueError(text)

    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert content == {"loss": None, "list": [1.5, None], "step": 3}
