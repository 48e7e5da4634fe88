"""The official annotation files, if available: all of them parse to the official counts."""

import os
import pathlib

import pytest

from rsa_jax.preparation.datasets import (
    Diving48,
    Finegym,
    Jester,
    Kinetics400,
    SomethingSomethingV1,
    SomethingSomethingV2,
    kinetics,
    something_something,
    ucf101,
)
from rsa_jax.preparation.datasets.lists import read_lines
from rsa_jax.preparation.datasets.official import Annotations, OfficialConfig
from rsa_jax.preparation.datasets.video_folder import read_list

VARIABLE = "RSA_JAX_REAL_ANNOTATIONS"
pytestmark = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no folder of annotation files")


def folder(name):
    found = pathlib.Path(os.environ[VARIABLE]) / name
    if not found.exists():
        pytest.skip(f"{name} is not in {os.environ[VARIABLE]}")
    return found


def tsn(name):
    """Class id by clip, from another project's list."""
    path = folder(f"KimManjin+CorrelationSideTuning/Recognition/lists/{name}")
    return {clip.id: clip.label for clip in read_list(path, path.parent)}


def builder(cls, name="default"):
    """The builder without a call of its constructor, which also requires the videos."""
    made = object.__new__(cls)
    made._builder_config = OfficialConfig(name=name)
    return made


@pytest.fixture
def something_v2():
    annotations = Annotations([folder("ChiWanZi1898+something-something-i3d/data")])
    made = builder(SomethingSomethingV2)
    return made, annotations, made.read_class_names(annotations)


def test_something_something_v2(something_v2):
    made, annotations, names = something_v2
    assert len(names) == made.num_classes
    clips = made._read_records(annotations.get("something-something-v2-validation.json"), names)
    assert len(clips) == made.official_sizes["validation"]
    assert {clip.id: clip.label for clip in clips} == tsn("sthv2/val_rgb.txt")
    assert [names.index(name) for pair in made.mirror_names for name in pair] == [86, 87, 93, 94, 166, 167]


def test_something_something_v2_of_other_releases(something_v2):
    made, _, names = something_v2
    part = folder("joaanna+something_else/code/dataset_splits/compositional_oneobject/train.json")
    assert len(made._read_records(part, names)) == 6560
    answers = folder("sdrdwy+AIR5011/something-something-prediction/labels/test-answers.csv")
    assert len(something_something.read_table(answers, names)) == made.official_sizes["test"]


def test_something_something_v1_has_the_classes_of_v2(something_v2):
    names = something_v2[2]
    for file in (
        "Phoenix1327+tea-action-recognition/tools/category.txt",
        "open-mmlab+mmaction2/tools/data/sthv1/label_map.txt",
    ):
        assert sorted(read_lines(folder(file))) == names
    for split, name in (("train", "train"), ("validation", "val")):
        clips = tsn(f"sthv1/{name}_rgb.txt")
        assert len(clips) == SomethingSomethingV1.official_sizes[split]
        assert set(clips.values()) == set(range(174))


def test_jester():
    annotations = Annotations([folder("Ajay-Deshpande+20bn-gesture-recognition/annotations")])
    names = builder(Jester).read_class_names(annotations)
    assert len(names) == Jester.num_classes
    clips = something_something.read_table(annotations.get("jester-v1-validation.csv"), names)
    assert len(clips) == Jester.official_sizes["validation"]
    assert {name for pair in Jester.mirror_names for name in pair} <= set(names)


@pytest.mark.parametrize("file, split, name", [("train", "train", "train"), ("test", "validation", "val")])
def test_diving48(file, split, name):
    annotations = Annotations([folder("jhong93+vpd/diving48/data")])
    made = builder(Diving48, "v2")
    names = made.read_class_names(annotations)
    assert len(set(names)) == made.num_classes
    clips = made._read_records(annotations.get(f"Diving48_V2_{file}.json"))
    assert len(clips) == made.official_sizes[split]
    assert {clip.id: clip.label for clip in clips} == tsn(f"diving48/{name}_rgb_320px_60fps_v2.txt")


@pytest.mark.parametrize("name", ["gym99", "gym288"])
def test_finegym(name):
    annotations = Annotations([folder("SDOlivia+FineGym/resources/dataset")])
    made = builder(Finegym, name)
    made._annotations = annotations
    names = made.read_class_names(annotations)
    assert len(set(names)) == made.num_classes
    clips = made._read_list_of_elements(annotations.get(f"{name}_val_element.txt"), {})
    assert len(clips) == made.official_sizes["validation"]
    labels, other = {clip.id: clip.label for clip in clips}, tsn(f"finegym/val_{name}_rgb_320px_60fps.txt")
    assert other.items() <= labels.items()
    assert len(labels) - len(other) <= 1
    if name == "gym99":
        train = made._read_list_of_elements(annotations.get(*made._train_lists), {})
        assert len(train) == made.official_sizes["train"]


def test_kinetics400():
    rows = kinetics.read_table(folder("activitynet+ActivityNet/Crawler/Kinetics/data/kinetics-400_val.csv"))
    assert len(rows) == len(set(rows)) == Kinetics400.official_sizes["validation"]
    assert len({name for name, _ in rows}) == Kinetics400.num_classes


def test_ucf101():
    path = folder("okankop+Efficient-3DCNNs/annotation_UCF101/testlist01.txt")
    names = sorted({line.partition("/")[0] for line in read_lines(path)})
    assert len(names) == ucf101.Ucf101.num_classes
    assert len(ucf101._read(path, names)) == 3783
