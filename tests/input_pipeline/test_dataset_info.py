"""Opening of prepared data sets."""

import json

import pytest

from rsa_jax.input_pipeline.dataset_info import load_info
from rsa_jax.preparation.datasets import motion
from rsa_jax.preparation.store import PreparationError
from tests.input_pipeline.tiny import changed


def test_info(data, capsys):
    info = load_info(data)
    assert info.class_names == motion.CLASS_NAMES
    assert info.flip_pairs == motion.FLIP_PAIRS
    assert info.num_examples == {"train": 64, "validation": 32}
    assert info.frame_size == (36, 36)
    assert info.provenance["label_map_sha256"]
    assert capsys.readouterr().out == ""  # it is drawn only once


def test_flip_pairs_of_version_0_1(copied):
    """They have another name."""
    data, path, _ = copied
    metadata = json.loads((path / "metadata.json").read_text())
    metadata["directional"] = metadata.pop("flip_pairs")
    (path / "metadata.json").write_text(json.dumps(metadata))
    assert load_info(data).flip_pairs == motion.FLIP_PAIRS


def test_unknown_split(data):
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation"):
        load_info(data, "train", "test")


@pytest.mark.parametrize(
    "name, message",
    [
        (None, r"config\.data\.name is not set"),
        ("motion/huge", "there are motion/default, motion/tiny"),
        (
            "video_folder/mine",
            r"python -m rsa_jax prepare video_folder/mine --source DIR --data_dir ",
        ),
        ("kinetic", "none of something_something_v1"),
        ("a/b/c", "expected 'builder' or 'builder/config'"),
        ("../x", "expected 'builder' or 'builder/config'"),
    ],
)
def test_names_that_cannot_be_opened(data, name, message):
    with pytest.raises(PreparationError, match=message):
        load_info(changed(data, name=name))


def test_a_data_set_with_a_short_file_is_not_whole(copied):
    data, path, shard = copied
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    expected = f"{path} is incomplete or damaged .*{shard.name} has {len(content) - 10} bytes instead of {len(content)}"
    with pytest.raises(PreparationError, match=expected):
        load_info(data)
    shard.unlink()
    with pytest.raises(PreparationError, match=f"incomplete or damaged .*{shard.name} is missing"):
        load_info(data)
    shard.write_bytes(content)
    load_info(data)
    (path / "metadata.json").unlink()
    with pytest.raises(PreparationError, match=r"incomplete or damaged .*metadata\.json is missing"):
        load_info(data)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda names: names[1:], "label.labels.txt holds 9 class names instead of 10"),
        (lambda names: [names[1], names[0], *names[2:]], "holds other class names than those of the preparation"),
        (None, "label.labels.txt is missing"),
    ],
)
def test_other_class_names_than_those_of_the_preparation(copied, change, message):
    """Without the check, training ends by an IndexError after an epoch, or the classes are named by numbers."""
    data, path, _ = copied
    labels = path / "label.labels.txt"
    if change:
        labels.write_text("\n".join(change(labels.read_text().splitlines())))
    else:
        labels.unlink()
    with pytest.raises(PreparationError, match=f"incomplete or damaged .*{message}"):
        load_info(data)
