"""Fields of the configuration: every number has a range, and values outside of it are refused by name."""

import math

import pytest
from ml_collections import ConfigDict

from rsa_jax.settings import CHOICES, RANGES, check_config, default_config

# Numbers that other code checks: the layers check the settings of the transforms.
ELSEWHERE = ("model.rsa.", "model.self_attention.", "model.involution.", "model.lambda_layer.", "model.depth")
STRUCTURE = ("model.stage_sizes", "model.transform_blocks")


def fields(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


NAMES = [name for _, _, names in RANGES for name in names]


def test_every_number_has_a_range_and_every_range_a_number():
    numbers = {
        name
        for name, value in fields(default_config())
        if is_number(value) or (isinstance(value, tuple) and name not in STRUCTURE)
        if not name.startswith(ELSEWHERE)
    }
    assert numbers | {"model.num_classes"} == set(NAMES) | {"eval.num_crops"}
    assert len(NAMES) == len(set(NAMES))
    assert set(CHOICES) <= {name for name, _ in fields(default_config())}


@pytest.mark.parametrize("name", NAMES)
def test_values_outside_of_the_range_are_refused_by_name(name):
    config = default_config()
    check_config(config)
    tuple_like = name == "data.crop_scales"
    for value in (-1, math.nan, *([()] if tuple_like else [])):
        changed = config.copy_and_resolve_references()
        with changed.ignore_type():
            changed.update_from_flattened_dict({name: (value,) if tuple_like and value != () else value})
        with pytest.raises(ValueError, match=f"^{name}: expected .*, got "):
            check_config(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.eval_crop": 224.0}, "data.eval_crop: expected above 0 and at most 1, got 224.0"),
        ({"data.crop_scales": (1.0, 2.0)}, r"data.crop_scales: expected above 0 and at most 1, got \(1.0, 2.0\)"),
        ({"model.dropout": 50.0}, "model.dropout: expected at least 0 and below 1, got 50.0"),
        ({"optimizer.momentum": 1.0}, "optimizer.momentum: expected at least 0 and below 1, got 1.0"),
        ({"checkpoint.keep_latest": 0}, "checkpoint.keep_latest: expected at least 1, got 0"),
        ({"seed": 2**32}, "seed: expected 0 to 4294967295, got 4294967296"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"optimizer.schedule": "day"}, r"optimizer.schedule: expected one of \('epoch', 'step'\), got 'day'"),
        ({"eval.num_crops": 2}, r"eval.num_crops: expected one of \(1, 3\), got 2"),
    ],
)
def test_the_message_names_the_field_what_was_expected_and_what_came(change, message):
    config = default_config()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_config(config)


def test_only_the_number_of_classes_may_be_left_open():
    config = default_config()
    config.model.num_classes = None
    check_config(config)
    for name, value in (("optimizer.gradient_clip", math.inf), ("batch_size", None), ("data.crop_scales", ("a",))):
        changed = config.copy_and_resolve_references()
        with changed.ignore_type():
            changed.update_from_flattened_dict({name: value})
        with pytest.raises(ValueError, match=f"^{name}: expected .*, got "):
            check_config(changed)
