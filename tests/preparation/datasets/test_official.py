import json
import pathlib
import tarfile

import numpy as np
import pytest

from rsa_jax.input_pipeline import pipeline
from rsa_jax.input_pipeline.dataset_info import load_info
from rsa_jax.preparation.archives import ArchiveError, find_archives, unpack_all
from rsa_jax.preparation.clip import encode_clip
from rsa_jax.preparation.datasets import make_builder, make_config
from rsa_jax.preparation.datasets.finegym import Place, places
from rsa_jax.preparation.store import PreparationError, data_path
from rsa_jax.settings import data_config
from rsa_jax.tools import prepare
from tests.preparation.datasets import miniatures
from tests.preparation.datasets.miniatures import MINIATURES
from tests.preparation.videos import moving_bar

SMALL = ("--height", "48", "--width", "64", "--workers", "1")


def run(tmp_path, name, *args):
    return prepare.main(
        [name, "--source", f"{tmp_path / 'source'}", "--data_dir", f"{tmp_path / 'data'}", *SMALL, *args]
    )


def data(tmp_path, name):
    data = data_config()
    data.name, data.data_dir, data.num_frames = name, str(tmp_path / "data"), 4
    return data


def batch(tmp_path, name, size=4):
    return next(pipeline.eval_batches(data(tmp_path, name), split="validation", batch_size=size))


def build(tmp_path, name, **options):
    path = data_path(name, tmp_path / "data")
    return make_builder(path, make_config(path, source=str(tmp_path / "source"), **options))


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_is_read_as_distributed(tmp_path, capsys, name):
    write, missing = MINIATURES[name]
    write(tmp_path / "source")
    assert run(tmp_path, name, "--check") == 1  # only a few of the official number of clips
    assert "officially there are" in capsys.readouterr().out
    assert run(tmp_path, name) == 1
    assert "Use --allow_missing to prepare the available clips" in capsys.readouterr().err
    assert not data_path(name, tmp_path / "data").exists()
    assert run(tmp_path, name, "--allow_missing") == 0
    report = json.loads((data_path(name, tmp_path / "data") / "report.json").read_text())
    assert [split["stored"] for split in report["splits"].values()] == [16, 4]
    assert len(report["splits"]["train"]["missing"]) == missing
    assert report["extra"] == []
    info = load_info(data(tmp_path, name))
    assert info.provenance["annotations_sha256"].keys()
    clips = batch(tmp_path, name)
    assert clips["label"].tolist() == [label for _, label in miniatures.VALIDATION]
    difference = np.abs(clips["frames"][0].astype(int) - moving_bar(8)[[1, 3, 5, 7]])
    assert difference.mean() < 12


def test_the_other_versions_of_two_data_sets(tmp_path):
    miniatures.diving48(tmp_path / "source", version="")
    assert {name: len(clips) for name, clips in build(tmp_path, "diving48/v1").clips().items()} == {
        "train": 16,
        "validation": 4,
    }
    miniatures.finegym(tmp_path / "source/gym", num_classes=288)
    builder = build(tmp_path, "finegym/gym288")
    assert len(set(builder.class_names)) == 288
    assert builder.inventory().splits["train"].official == 29_334


def test_archives_are_unpacked_parts_and_all(tmp_path, capsys):
    miniatures.something_something_v2_in_archives(tmp_path / "source")
    before = sorted((tmp_path / "source").rglob("*"))
    assert run(tmp_path, "something_something_v2", "--check") == 1
    assert "These archives were not opened" in capsys.readouterr().err
    assert run(tmp_path, "something_something_v2", "--allow_missing") == 0
    assert batch(tmp_path, "something_something_v2")["label"].tolist() == [0, 1, 2, 0]
    assert sorted((tmp_path / "source").rglob("*")) == before
    assert [path.name for path in sorted((tmp_path / "data/something_something_v2/default").iterdir())] == [
        ".lock",
        "1.0.0",
    ]


def test_archives_that_are_not_whole(tmp_path, capsys):
    miniatures.something_something_v2_in_archives(tmp_path / "source")
    last, middle = (tmp_path / f"source/20bn-something-something-v2-0{i}.zip" for i in (2, 1))
    whole, middle_one = last.read_bytes(), middle.read_bytes()
    middle.unlink()
    assert run(tmp_path, "something_something_v2", "--allow_missing") == 1
    assert "missing parts 1 of 2" in capsys.readouterr().err
    middle.write_bytes(middle_one)
    last.write_bytes(whole[:100])
    (tmp_path / "data/something_something_v2/default/unpacked.1.0.0").rename(tmp_path / "gone")
    assert run(tmp_path, "something_something_v2", "--allow_missing") == 1
    assert "20bn-something-something-v2-02.zip: cannot be unpacked" in capsys.readouterr().err


def test_an_archive_that_was_mended_is_read_again(tmp_path, capsys):
    """A tar file that is cut off between two members looks complete."""
    miniatures.diving48(tmp_path / "source")
    videos = tmp_path / "source/rgb"
    names = sorted(path.name for path in videos.iterdir())
    archive = tmp_path / "source/archives/rgb.tar"
    archive.parent.mkdir()
    for kept in (names[:3], names):
        with tarfile.open(archive, "w") as tar:
            for name in kept:
                tar.add(videos / name, name)
        if kept != names:
            videos.rename(tmp_path / "gone")
            videos = tmp_path / "gone"
            assert run(tmp_path, "diving48/v2") == 1
            assert "the videos of " in capsys.readouterr().err
    assert run(tmp_path, "diving48/v2", "--allow_missing") == 0
    assert "16 clips listed, officially 15027; 0 missing" in capsys.readouterr().out


def test_an_interrupted_end_of_unpacking_is_gone_on_with(tmp_path, monkeypatch):
    miniatures.something_something_v2_in_archives(tmp_path / "source")
    found, unlink = find_archives(tmp_path / "source"), pathlib.Path.unlink
    removed = []

    def once(path, **kwargs):
        if len(removed) == 1:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathlib.Path, "unlink", once)
        unpack_all(found, tmp_path / "target")
    unpack_all(found, tmp_path / "target")
    assert len(list((tmp_path / "target").rglob("*.webm"))) == 20
    assert not list((tmp_path / "target/outer").glob("*-0?"))


def test_a_damaged_tar_file_is_found_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=0) as tar:
        (tmp_path / "data").write_bytes(bytes(range(256)) * 400)
        tar.add(tmp_path / "data", "data")
    content = bytearray((tmp_path / "a.tar.gz").read_bytes())
    content[50_000:50_040] = bytes(40)
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"a\.tar\.gz: cannot be unpacked: CRC"):
        unpack_all(find_archives(tmp_path), tmp_path / "target")


def test_files_beside_archives_are_none(tmp_path):
    for name in ("README.md", "run.sh", "notes-01", "x.gz"):
        (tmp_path / name).write_text("nothing")
    assert find_archives(tmp_path) == {}


def test_folders_of_videos_may_be_called_as_a_clip(tmp_path):
    """FineGym's elements in one folder per video."""
    miniatures.finegym(tmp_path / "source")
    for path in list((tmp_path / "source/videos").glob("*_A_*.mp4")):
        folder = tmp_path / "source/videos" / path.name.partition("_E_")[0]
        folder.mkdir()
        path.rename(folder / path.name)
    assert not any(build(tmp_path, "finegym/gym99").missing().values())
    miniatures.write_frames(tmp_path / "source/videos/_a-video_01_E_000000_000009")
    (tmp_path / "source/videos/_a-video_01_E_000000_000009.mp4").unlink()
    assert build(tmp_path, "finegym/gym99").missing()["train"] == ["_a-video_01_E_000000_000009_A_0000_0001"]


def test_what_was_prepared_stays_until_something_better_is_there(tmp_path, capsys):
    miniatures.diving48(tmp_path / "source")
    assert run(tmp_path, "diving48/v2", "--allow_missing") == 0
    assert run(tmp_path, "diving48/v2", "--overwrite") == 1
    assert batch(tmp_path, "diving48/v2")["label"].tolist() == [0, 1, 2, 0]
    assert run(tmp_path, "diving48/v2", "--overwrite", "--allow_missing", "--quality", "50") == 0
    assert load_info(data(tmp_path, "diving48/v2")).provenance["jpeg_quality"] == 50


def test_an_error_at_the_very_end_costs_no_work(tmp_path, monkeypatch, capsys):
    miniatures.diving48(tmp_path / "source")
    with monkeypatch.context() as patch:
        patch.setattr("rsa_jax.preparation.builder._versions", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(tmp_path, "diving48/v2", "--allow_missing") == 130
    assert "Run the same command to resume" in capsys.readouterr().err
    assert run(tmp_path, "diving48/v2", "--allow_missing") == 0
    assert "16/16 [00:00<?" in capsys.readouterr().err  # nothing was left to do


def test_a_clip_in_both_splits_is_refused(tmp_path, capsys):
    miniatures.diving48(tmp_path / "source")
    (tmp_path / "source/Diving48_V2_test.json").write_text('[{"vid_name": "-video00_00000", "label": 0}]')
    assert run(tmp_path, "diving48/v2", "--allow_missing") == 1
    assert "Listed more than once: 1 clips" in capsys.readouterr().err


def test_videos_of_the_test_split_are_not_superfluous(tmp_path):
    miniatures.something_something_v2(tmp_path / "source")
    miniatures.write_clip(tmp_path / "source/20bn-something-something-v2/999.webm", "libvpx-vp9")
    assert build(tmp_path, "something_something_v2").extra() == []


def test_what_is_missing_or_extra_is_named(tmp_path, capsys):
    miniatures.diving48(tmp_path / "source")
    videos = tmp_path / "source/rgb"
    (videos / "-video00_00000.mp4").unlink()
    (videos / "_video01_00001.mp4").write_bytes(b"")
    miniatures.write_clip(videos / "another.mp4")
    assert run(tmp_path, "diving48/v2", "--allow_missing") == 1  # one in twenty is too many
    assert "1 of 19 clips could not be decoded" in capsys.readouterr().err
    assert run(tmp_path, "diving48/v2", "--allow_missing", "--max_failed_fraction", "0.1") == 0
    printed = capsys.readouterr().out
    for line in ("train: 16 clips listed, officially 15027; 1 missing; 14 stored", "-video00_00000", "another.mp4"):
        assert line in printed
    assert "_video01_00001.mp4: cannot be decoded" in printed
    assert "classes without a clip: 45" in printed


def test_extracted_frames_with_lists(tmp_path):
    """Lists work for any data set; labels and class names stay the official ones."""
    miniatures.diving48(tmp_path / "source")
    for name, clips in (("train", miniatures.TRAIN), ("val", miniatures.VALIDATION)):
        lines = [f"frames of all/{number} 8 {label}\n" for number, label in clips]
        (tmp_path / f"{name}.txt").write_text("".join(lines))
        for number, _ in clips:
            miniatures.write_frames(tmp_path / "source/frames of all" / str(number))
    lists = ["--train_list", f"{tmp_path}/train.txt", "--validation_list", f"{tmp_path}/val.txt"]
    assert run(tmp_path, "diving48/v2", *lists, "--allow_missing") == 0
    assert batch(tmp_path, "diving48/v2")["label"].tolist() == [0, 1, 2, 0]
    assert load_info(data(tmp_path, "diving48/v2")).class_names[1] == "Back 1som NoTwis PIKE"
    (tmp_path / "val.txt").write_text("frames of all/16 8 48\n")
    with pytest.raises(PreparationError, match=r"val.txt: expected labels from 0 to 47, got 48 to 48"):
        build(tmp_path, "diving48/v2", train_list=lists[1], validation_list=lists[3]).inventory()


def test_every_third_frame(tmp_path):
    miniatures.something_something_v1(tmp_path / "source")
    assert run(tmp_path, "something_something_v1", "--allow_missing", "--stride", "3") == 0
    info = load_info(data(tmp_path, "something_something_v1"))
    assert info.provenance["stride"] == 3
    frames = batch(tmp_path, "something_something_v1")["frames"][0].astype(int)
    assert np.abs(frames - moving_bar(8)[[0, 3, 3, 6]]).mean() < 12  # three frames are stored


def test_flip_pairs_are_known_by_name(tmp_path):
    miniatures.something_something_v1(tmp_path / "source")
    builder = build(tmp_path, "something_something_v1")
    assert len(builder.flip_pairs) == 3
    for one, other in builder.flip_pairs:
        swapped = builder.class_names[one].replace("left", "?").replace("right", "left").replace("?", "right")
        assert swapped == builder.class_names[other]


@pytest.mark.parametrize(
    "name, file, content, message",
    [
        ("something_something_v1", "{v1}-labels.csv", "one\ntwo", "expected 174 class names, got 2"),
        (
            "something_something_v1",
            "{v1}-train.csv",
            "5,Closing",
            r"line 1: expected 'id;class name'",
        ),
        (
            "something_something_v1",
            "{v1}-train.csv",
            "5;Nothing",
            r"entry 1: no such class: 'Nothing'",
        ),
        (
            "something_something_v2",
            "{v2}-train.json",
            '[{"id": "1"}]',
            "expected 'id' and 'template'",
        ),
        ("something_something_v2", "{v2}-train.json", "[", r"train.json: .*Expecting value"),
        ("diving48/v2", "Diving48_V2_test.json", '[{"vid_name": "a"}]', "expected 'vid_name' and 'label'"),
        (
            "diving48/v2",
            "Diving48_V2_test.json",
            '[{"vid_name": "a", "label": 0}, {"vid_name": "b", "label": 48}]',
            "labels from 0 to 47, got 0 to 48",
        ),
        (
            "something_something_v1",
            "{v1}-validation.csv",
            "5;\xe9",
            r"validation\.csv, line 1: expected text in UTF-8, got the bytes e9",
        ),
        ("something_something_v2", "{v2}-labels.json", "[1, 2]", r"labels.json: not of the expected form"),
        ("diving48/v2", "Diving48_vocab.json", "[" + ", ".join(['["a"]'] * 48) + "]", "come more than once: a"),
        ("finegym/gym99", "gym99_val_element.txt", "x_E_1_A_2 3", "line 1: expected 'VIDEO_E_"),
        ("kinetics400", "kinetics-400_val.csv", "label,id\na,b", "expected the columns label, youtube_id"),
        ("kinetics400", "kinetics-400_val.csv", "label,youtube_id,time_start,time_end\nx,b,1,2", "does not have"),
        ("ucf101/split1", "ucfTrainTestlist/trainlist01.txt", "Action000/a.avi 0", "line 1: expected 'ClassName/clip"),
    ],
)
def test_annotations_that_are_wrong(tmp_path, name, file, content, message):
    MINIATURES[name][0](tmp_path / "source")
    (tmp_path / "source" / file.format(v1="something-something-v1", v2="something-something-v2")).write_text(
        content, encoding="latin-1"
    )
    with pytest.raises(PreparationError, match=message):
        build(tmp_path, name).inventory()


def test_annotations_that_are_not_there(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(PreparationError, match=r"There is no Diving48_vocab.json in .*source"):
        build(tmp_path, "diving48/v2").inventory()
    with pytest.raises(PreparationError, match="there are diving48/v2, diving48/v1"):
        build(tmp_path, "diving48")
    with pytest.raises(PreparationError, match="diving48 has no option --validation_fraction"):
        build(tmp_path, "diving48/v2", validation_fraction=0.5)


def test_two_videos_of_one_name_are_refused(tmp_path):
    miniatures.diving48(tmp_path / "source")
    miniatures.write_clip(tmp_path / "source/copy/-video00_00000.mp4")
    with pytest.raises(PreparationError, match=r"1 duplicate clips .*-video00_00000"):
        build(tmp_path, "diving48/v2").inventory()


def test_replacements_of_kinetics(tmp_path):
    """The layout of CVDF: a corrupt clip remains in its split's folder."""
    miniatures.kinetics400(tmp_path / "source")
    corrupt = tmp_path / "source/action 000/00000000000_000003_000013.mp4"
    replacement = tmp_path / "source/replacement/replacement_for_corrupted_k400" / corrupt.name
    miniatures.write_clip(replacement)
    made = build(tmp_path, "kinetics400")
    assert made.clips()["train"][0].source == str(replacement)
    assert made.inventory().extra == [f"{corrupt}: replaced by {replacement}"]


def test_lists_with_frames_beside_optical_flow(tmp_path):
    miniatures.diving48(tmp_path / "source")
    for i in range(2):
        miniatures.write_frames(tmp_path / f"source/{i}")
        (tmp_path / f"source/{i}/flow_x_00001.jpg").touch()
        (tmp_path / f"{i}.txt").write_text(f"{i}\t{8 - i}\t0\r\n\r\n")
    lists = {"train_list": f"{tmp_path}/0.txt", "validation_list": f"{tmp_path}/1.txt"}
    made = build(tmp_path, "diving48/v2", **lists)
    assert [clip.num_frames for clips in made.clips().values() for clip in clips] == [8, 7]
    assert made.extra() == [f"{tmp_path}/source/{i}/flow_x_#.jpg (1): optical flow" for i in range(2)]
    assert len(encode_clip(made.clips()["train"][0], (48, 64), 90, 1)) == 8
    refused = encode_clip(made.clips()["validation"][0], (48, 64), 90, 1)
    assert refused == f"{tmp_path}/source/1: cannot be decoded: expected 7 frames, as the list states, got 8"


def test_places_of_an_element():
    events = {"a_-b": {"E_000010_000020": {"timestamps": [[10.5, 20.0]], "segments": None}}}
    element = "a_-b_E_000010_000020_A_0001_0003"
    assert places(element, {}) == places(element, events) == (Place(element),)
    events["a_-b"]["E_000010_000020"]["segments"] = {"A_0001_0003": {"timestamps": [[1.25, 2.0], [2.0, 3.0]]}}
    assert places(element, events)[1:] == (
        Place("a_-b_E_000010_000020", (1.25, 3.0)),
        Place("a_-b", (11.75, 13.5)),
    )
