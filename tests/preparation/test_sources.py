import os
import sys

import pytest

from rsa_jax.preparation.sources import find_clips, find_videos


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def relative(paths, root):
    return [str(path.relative_to(root)) for path in paths]


def test_videos_of_a_folder(tmp_path):
    touch(tmp_path, "b.mp4", "a/2.avi", "a/1.webm", "frames/1.jpg", "notes.txt", ".hidden.mp4")
    touch(tmp_path, "frames/thumbs/notes.txt", "a/preview.jpg")
    clips, unused = find_clips(tmp_path)
    assert relative(clips, tmp_path) == ["b.mp4", "a/1.webm", "a/2.avi", "frames"]
    assert sorted(text.removeprefix(f"{tmp_path}/") for text in unused) == [
        "a/preview.jpg: an image beside clips",
        "frames/thumbs/notes.txt: not a video by its extension",
        "notes.txt: not a video by its extension",
    ]


@pytest.mark.parametrize(
    "suffix", ["gif", "mts", "M2TS", "vob", "mpe", "m2v", "mxf", "ASF", "divx", "ogm", "f4v", "Mp4"]
)
def test_a_video_by_its_extension(tmp_path, suffix):
    touch(tmp_path, f"a.{suffix}")
    assert find_clips(tmp_path)[0] == [tmp_path / f"a.{suffix}"]
    assert find_videos([tmp_path], {"a"}) == ({"a": tmp_path / f"a.{suffix}"}, [])


def test_optical_flow_beside_frames_is_no_clip(tmp_path):
    for stream in ("img", "flow_x", "flow_y"):
        touch(tmp_path, f"7/{stream}/1.jpg", f"7/{stream}/2.jpg")
    for stream in ("rgb", "u", "v"):
        touch(tmp_path, f"all/{stream}/8/1.jpg")
    assert relative(find_clips(tmp_path)[0], tmp_path) == ["7/img", "all/rgb/8"]
    assert f"{tmp_path}/7/flow_x: optical flow" in find_clips(tmp_path)[1]
    assert find_videos([tmp_path], {"7", "8"})[0] == {"7": tmp_path / "7", "8": tmp_path / "all/rgb/8"}


def test_folders_inside_a_folder_of_frames_are_no_clips(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "a/small/1.jpg")
    assert find_clips(tmp_path) == ([tmp_path / "a"], [f"{tmp_path}/a/small: inside a folder of frames"])


def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "source/a/1.mp4", "elsewhere/2.mp4")
    source = tmp_path / "source"
    (source / "more").symlink_to("../elsewhere")
    for place, target in (
        ("a/up", ".."),
        ("a/itself", "."),
        ("self", "self"),
        ("again", "../elsewhere"),
        ("root", "/"),
    ):
        (source / place).symlink_to(target)
    assert relative(find_clips(source)[0], source) == ["a/1.mp4", "again/2.mp4"]
    assert any(text.startswith(f"{source}/a/up: a link") for text in find_clips(source)[1])
    found, extra = find_videos([source], {"1"})
    assert relative(found.values(), source) == ["a/1.mp4"]
    assert [os.path.basename(path) for path in extra] == ["2.mp4"]


def test_a_replacement_wins(tmp_path):
    """The layout of CVDF's Kinetics."""
    touch(tmp_path, "k400/train/a_000001_000011.mp4", "k400/val/b_000001_000011.mp4")
    touch(tmp_path, "k400/replacement/replacement_for_corrupted_k400/a_000001_000011.mp4")
    found, extra = find_videos([tmp_path], {"a_000001_000011", "b_000001_000011"})
    winner = tmp_path / "k400/replacement/replacement_for_corrupted_k400/a_000001_000011.mp4"
    assert found["a_000001_000011"] == winner
    assert extra == [f"{tmp_path}/k400/train/a_000001_000011.mp4: replaced by {winner}"]
    roots = [tmp_path / "k400/train", tmp_path / "k400"]
    assert find_videos(roots, {"a_000001_000011"})[0] == {"a_000001_000011": winner}
    touch(tmp_path, "k400/replacement/again/a_000001_000011.mp4")
    with pytest.raises(ValueError, match="1 duplicate clips"):
        find_videos([tmp_path], {"a_000001_000011"})


@pytest.mark.parametrize("name", ["[a] *?%03d:", "two\nlines", "-", "é" * 120, "x" * 250, "' \" $HOME"])
def test_odd_names(tmp_path, name):
    root = tmp_path / name
    touch(root, f"{name}.mp4", f"{name[1:]}_/1.jpg")
    assert find_clips(root)[0] == [root / f"{name}.mp4", root / f"{name[1:]}_"]
    assert len(find_videos([root], {name, f"{name[1:]}_"})[0]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    touch(tmp_path / name, f"{name}.mp4")
    assert find_clips(tmp_path)[0] == [tmp_path / name / f"{name}.mp4"]
