import subprocess
import sys

import pytest

from rsa_jax.input_pipeline.dataset_info import load_info
from rsa_jax.preparation.datasets.video_folder import VideoFolder, VideoFolderConfig, find_splits, parse_line, read_list
from rsa_jax.preparation.store import PreparationError
from rsa_jax.settings import data_config
from rsa_jax.tools import prepare
from tests.preparation.videos import moving_bar, write_folder, write_video


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(root, **fields):
    names, splits, _ = find_splits(VideoFolderConfig(name="x", source=str(root), **fields))
    return names, {split: [(clip.id, clip.label) for clip in clips] for split, clips in splits.items()}


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_split_by_folder(tmp_path, validation):
    touch(tmp_path, "train/b/2.mp4", "train/a c/1.avi", "train/a c/.DS_Store", f"{validation}/b/-1.mp4")
    touch(tmp_path, f"{validation}/a c/f/img_1.jpg", "train/readme.txt")
    names, splits = find(tmp_path)
    assert names == ["a c", "b"]
    assert splits == {
        "train": [("a c/1.avi", 0), ("b/2.mp4", 1)],
        "validation": [("a c/f", 0), ("b/-1.mp4", 1)],
    }


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(PreparationError, match="not a folder"):
        find(tmp_path / "none")
    with pytest.raises(PreparationError, match="no class folders"):
        find(tmp_path)
    touch(tmp_path, "train/a/1.mp4")
    touch(tmp_path, "val/a/1.mp4", "val/b/1.mp4")
    with pytest.raises(PreparationError, match=r"Classes in only one of .*: b\."):
        find(tmp_path)
    (tmp_path / "train/b").mkdir()
    with pytest.raises(PreparationError, match=r"train/b holds no video and no folder of frames\.$"):
        find(tmp_path)


@pytest.mark.parametrize("folders", [["test"], ["train"], ["val"], ["train", "test"], ["train", "validation", "test"]])
def test_the_splits_that_are_there(tmp_path, folders):
    touch(tmp_path, *(f"{folder}/{name}/1.mp4" for folder in folders for name in "ab"), "readme.txt")
    names, splits = find(tmp_path)
    assert names == ["a", "b"]
    expected = [("a/1.mp4", 0), ("b/1.mp4", 1)]
    assert splits == {folder.replace("val", "validation", folder == "val"): expected for folder in folders}


def test_a_class_may_be_called_test(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("test", "walk") for i in range(2)))
    names, splits = find(tmp_path)
    assert names == ["test", "walk"]
    assert list(splits) == ["train", "validation"]


def test_two_folders_of_one_split(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "val/a/2.mp4", "validation/a/3.mp4")
    with pytest.raises(PreparationError, match="holds both validation/ and val/"):
        find(tmp_path)


def builder(tmp_path, **fields):
    return VideoFolder(
        data_dir=tmp_path / "data", config=VideoFolderConfig(name="x", source=str(tmp_path / "v"), **fields)
    )


def test_what_is_no_clip_is_named(tmp_path):
    touch(tmp_path / "v", *(f"{name}/{i}.mp4" for name in "ab" for i in range(2)), "a/README.txt", "b/song.m4a")
    touch(tmp_path / "v", *(f"a/frames/{name}_{i}.jpg" for name in ("img", "flow_x", "flow_y") for i in range(3)))
    made = builder(tmp_path)
    assert sum(len(clips) for clips in made.clips().values()) == 5
    assert [text.removeprefix(f"{tmp_path}/v/") for text in made.inventory().extra] == [
        "a/README.txt: not a video by its extension",
        "b/song.m4a: not a video by its extension",
        "a/frames/flow_x_#.jpg (3): optical flow",
        "a/frames/flow_y_#.jpg (3): optical flow",
    ]
    assert "not used: 4\n" in made.inventory().text()


def test_class_folders_without_clips(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/notes.txt")
    with pytest.raises(PreparationError, match=r"b holds no video .*, only .*notes\.txt: not a video by its extension"):
        find(tmp_path)
    touch(tmp_path, "b/1.jpg", "b/2.jpg")
    with pytest.raises(PreparationError, match=r"b holds images; expected videos, or a folder for the frames"):
        find(tmp_path)


def test_a_loop_of_links_stops_nothing(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4", "val/b/2.mp4")
    for place, target in (("train/a/up", ".."), ("train/a/root", "../.."), ("train/itself", "."), ("train/b/x", "x")):
        (tmp_path / place).symlink_to(target)
    names, splits = find(tmp_path)
    assert names == ["a", "b"]
    assert splits["train"] == [("a/1.mp4", 0), ("b/1.mp4", 1)]


@pytest.mark.parametrize("other", ["a/../a/1.mp4", "link/1.mp4", "link.mp4", "./a//1.mp4", "{root}/a/1.mp4"])
def test_a_clip_in_both_splits_is_refused_by_any_path(tmp_path, other):
    touch(tmp_path / "v", "a/1.mp4", "a/2.mp4")
    (tmp_path / "v/link").symlink_to("a")
    (tmp_path / "v/link.mp4").symlink_to("a/1.mp4")
    (tmp_path / "train.txt").write_text("a/1.mp4 0\n")
    (tmp_path / "val.txt").write_text(f"{other.format(root=tmp_path / 'v')} 0\n")
    lists = {"train_list": str(tmp_path / "train.txt"), "validation_list": str(tmp_path / "val.txt")}
    with pytest.raises(PreparationError, match=r"Listed more than once: 1 clips: a/1\.mp4 .* and "):
        builder(tmp_path, **lists)
    (tmp_path / "val.txt").write_text("a/2.mp4 0\n")
    assert len(builder(tmp_path, **lists).clips()["validation"]) == 1


def test_split_by_fraction(tmp_path):
    touch(
        tmp_path,
        *(f"{name}/{i:02}.mp4" for name in "ab" for i in range(20)),
        "rare/1.mp4",
        "pair/1.mp4",
        "pair/2.mp4",
    )
    names, splits = find(tmp_path, validation_fraction=0.2)
    assert names == ["a", "b", "pair", "rare"]
    assert [label for _, label in splits["validation"]] == [0] * 4 + [1] * 4 + [2]
    assert len(splits["train"]) == 34
    assert not set(splits["train"]) & set(splits["validation"])
    assert find(tmp_path, validation_fraction=0.2)[1] == splits
    assert find(tmp_path, validation_fraction=0.2, split_seed=1)[1] != splits
    with pytest.raises(PreparationError, match="between 0 and 1"):
        find(tmp_path, validation_fraction=1.0)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("a.mp4 3", ("a.mp4", None, 3)),
        ("dir/my clip.mp4 3", ("dir/my clip.mp4", None, 3)),
        ("dir/my clip 120 3", ("dir/my clip", 120, 3)),
        ("take 2 0", ("take 2", None, 0)),
        ("take 2 48 0", ("take 2", 48, 0)),
        ("-x_E_000123 45\t7", ("-x_E_000123", 45, 7)),
        ("my clip\t45\t7", ("my clip", 45, 7)),
    ],
)
def test_list_lines(tmp_path, line, expected):
    touch(tmp_path, "take 2")
    assert parse_line(line, tmp_path) == expected


def test_read_list(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeffa 1.mp4 0\r\n\r\nb 20 1", encoding="utf-8")
    assert [(clip.id, clip.label) for clip in read_list(tmp_path / "list.txt", tmp_path)] == [
        ("a 1.mp4", 0),
        ("b", 1),
    ]
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 walking\n")
    with pytest.raises(PreparationError, match=r"list\.txt, line 2: expected 'path label'.*'b\.mp4 walking'"):
        read_list(tmp_path / "list.txt", tmp_path)


def lists(root, train, validation):
    for split, labels in (("train", train), ("validation", validation)):
        (root / f"{split}.txt").write_text("".join(f"{split}{i}.mp4 {label}\n" for i, label in enumerate(labels)))
    return {"train_list": str(root / "train.txt"), "validation_list": str(root / "validation.txt")}


def test_split_by_list(tmp_path):
    names, splits = find(tmp_path, **lists(tmp_path, [1, 0, 2], [2]))
    assert names == ["0", "1", "2"]
    assert splits["train"] == [("train0.mp4", 1), ("train1.mp4", 0), ("train2.mp4", 2)]
    (tmp_path / "names.txt").write_text("zebra\nape\nno clip\n")
    names, _ = find(tmp_path, **lists(tmp_path, [1, 0], [2]), label_names=str(tmp_path / "names.txt"))
    assert names == ["zebra", "ape", "no clip"]


@pytest.mark.parametrize(
    "train, validation, message",
    [
        ([1, 2, 3], [1], r"train\.txt: unexpected labels \[3\].*expected 0 to 2.*count from 1"),
        ([0, 2], [0], r"train\.txt: unexpected labels \[2\]"),
        ([0, 1], [2], r"validation\.txt: unexpected labels \[2\]"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, train, validation, message):
    with pytest.raises(PreparationError, match=message):
        find(tmp_path, **lists(tmp_path, train, validation))


def test_more_labels_than_names(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(PreparationError, match=r"unexpected labels \[2\].*count from 1"):
        find(tmp_path, **lists(tmp_path, [1, 2], [1]), label_names=str(tmp_path / "names.txt"))


def test_one_list_is_not_enough(tmp_path):
    with pytest.raises(PreparationError, match="go together"):
        find(tmp_path, train_list="x")


@pytest.fixture
def build(tmp_path):
    """Builder of a data set of four classes, given the names of its flip pairs."""
    touch(tmp_path / "v", *(f"{name}/{i}.mp4" for name in ("a=b", "left", "right", "up") for i in range(2)))

    def build(*names):
        config = VideoFolderConfig(name="x", source=str(tmp_path / "v"), flip_pair_names=names)
        return VideoFolder(data_dir=tmp_path, config=config)

    return build


def test_flip_pair_names(build):
    assert build("right=left", "up", "a=b").flip_pairs == [(2, 1), (3,), (0,)]
    assert build("right", "left").flip_pairs == [(2,), (1,)]


@pytest.mark.parametrize(
    "names, message",
    [
        (["down", "left"], "no such class: 'down'; there are a=b, left, right, up"),
        (["left="], "no such class: ''"),
        (["left=right", "left"], "named more than once: left"),
        (["up=up"], "named more than once: up"),
        (["left=right=up"], "expected 'NAME' or 'NAME=NAME', got 'left=right=up'"),
    ],
)
def test_flip_pair_names_that_do_not_fit_are_refused_before_anything_is_decoded(build, names, message):
    with pytest.raises(PreparationError, match=message):
        build(*names).check()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tmp_path):
    touch(tmp_path / "v", "a/1.mp4", "a/\udcff.mp4")
    config = VideoFolderConfig(name="x", source=str(tmp_path / "v"))
    with pytest.raises(PreparationError, match="Not UTF-8"):
        VideoFolder(data_dir=tmp_path, config=config)


@pytest.mark.parametrize("field, value", [("height", 0), ("quality", 101), ("workers", 0)])
def test_values_out_of_range(field, value):
    with pytest.raises(PreparationError, match=f"{field} is {value}; expected 1 to"):
        VideoFolderConfig(name="x", source="v", **{field: value})


ODD_NAMES = ['<b onclick="x">{{ 7 * 7 }}', '{"a": [1]}', "%s {x} {% raw %}", "[a-z]*?: é"]


def test_odd_names_are_stored_as_they_are(tmp_path):
    """HTML, JSON and templates in class names; patterns, line ends and long names in paths."""
    source = tmp_path / "v [x]*?%03d:\n"
    for name in ODD_NAMES:
        write_video(source / "test" / name / f"{'é' * 120}[1]\n.avi", moving_bar(2))
    folders = ["--source", str(source), "--data_dir", str(tmp_path / "data [x]*")]
    sizes = ["--height", "32", "--width", "32", "--workers", "1"]
    assert prepare.main(["video_folder", *folders, *sizes]) == 0
    data = data_config()
    data.name, data.data_dir = "video_folder", str(tmp_path / "data [x]*")
    info = load_info(data, "test")
    assert info.class_names == tuple(sorted(ODD_NAMES))
    assert info.num_examples == {"test": 4}
    with pytest.raises(ValueError, match="has no split 'train'; it has test"):
        load_info(data, "train")


def test_two_preparations_at_once(tmp_path):
    """The second one waits, and finds the data set."""
    write_folder(tmp_path / "v", {"a": 2, "b": 2})
    command = [sys.executable, "-m", "rsa_jax", "prepare", "video_folder", "--source", str(tmp_path / "v")]
    options = ["--data_dir", str(tmp_path / "data"), "--height", "32", "--width", "32", "--workers", "1"]
    running = [subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted("already prepared" in text for text in printed) == [False, True]


def test_classes_that_sound_directional_and_are_not_declared_are_named(tmp_path, capsys):
    names = ("turn left", "turn right", "Swipe_Left", "bright", "spin clockwise", "jump")
    touch(tmp_path, *(f"v/{name}/{i}.mp4" for name in names for i in range(2)))
    config = VideoFolderConfig(name="x", source=str(tmp_path / "v"), flip_pair_names=("turn left=turn right",))
    VideoFolder(data_dir=tmp_path / "data", config=config).check()
    message = capsys.readouterr().err
    assert "Warning: a horizontal flip may change these classes: Swipe_Left, spin clockwise. " in message
