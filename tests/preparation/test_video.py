import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from rsa_jax.preparation.clip import Clip, encode_clip
from rsa_jax.preparation.sources import list_videos
from rsa_jax.preparation.video import VideoError, decode_jpeg, encode_jpeg, frame_rate, natural_key, read_frames
from tests.preparation.videos import moving_bar, turn_tag, write_video

SIZE = (48, 64)


def decode(path, size=SIZE):
    return np.stack(list(read_frames(path, size)))


@pytest.mark.parametrize(
    "name, codec, container",
    [
        ("a.mp4", "libx264", None),
        ("a.webm", "libvpx-vp9", None),
        ("a.avi", "mpeg4", None),
        ("a.mkv", "mpeg4", "matroska"),
        ("webm named.mp4", "libvpx-vp9", "webm"),
        ("without_extension", "mpeg4", "avi"),
        ("-starts with dash.avi", "mpeg4", None),
        ('quote\'s "and" 100%03d: file:é.avi', "mpeg4", None),
    ],
)
def test_decodes_every_frame(tmp_path, name, codec, container):
    frames = moving_bar()
    decoded = decode(write_video(tmp_path / name, frames, codec, container))
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - frames).mean() < 12


def test_resizes(tmp_path):
    assert decode(write_video(tmp_path / "a.avi", moving_bar(3)), (24, 20)).shape == (3, 24, 20, 3)


def test_one_frame(tmp_path):
    assert len(decode(write_video(tmp_path / "a.mp4", moving_bar(1), "libx264"))) == 1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turns_by_the_rotation_tag(tmp_path, quarters):
    frames = moving_bar(4)
    path = turn_tag(write_video(tmp_path / "a.mp4", np.rot90(frames, quarters, (1, 2)), "libx264"), quarters)
    assert np.abs(decode(path).astype(int) - frames).mean() < 12


def test_truncated_file(tmp_path):
    path = write_video(tmp_path / "a.webm", moving_bar(40), "libvpx-vp9")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"a\.webm: .* after frame \d+: cut off: it ends at [01]\.\d+ of 3\.\d+ s"):
        decode(path)
    path = write_video(tmp_path / "a.mp4", moving_bar(40), "libx264")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the index is at the end of the file
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be decoded"):
        decode(path)


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile other.avi\n", "#EXTM3U\n#EXTINF:1,\nother.avi\n#EXT-X-ENDLIST\n"]
)
def test_a_text_that_names_another_video_is_no_video(tmp_path, monkeypatch, text):
    write_video(tmp_path / "other.avi", moving_bar(4))
    (tmp_path / "a.mp4").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match=r"a\.mp4"):
        decode(tmp_path / "a.mp4")


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="neither a file nor a folder"):
        decode(tmp_path / "a.mp4")


def test_a_folder_of_frames_has_no_parts(tmp_path):
    Image.fromarray(moving_bar(1)[0]).save(tmp_path / "img_1.png")
    with pytest.raises(VideoError, match="has no timestamps"):
        list(read_frames(tmp_path, SIZE, (0, 1)))


def test_damaged_packets_are_skipped(tmp_path):
    path = write_video(tmp_path / "a.avi", moving_bar(40))
    content = bytearray(path.read_bytes())
    middle = content.index(b"00dc", len(content) // 2) + 8
    content[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert 38 <= len(decode(path)) <= 40


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\nsize 12\n",
        b"\x00" * 5000,
        b"RIFF\x00\x00\x00\x00AVI ",
    ],
)
def test_no_video_is_an_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "broken one.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"broken one\.mp4: "):
        decode(path)
    assert "broken one.mp4: " in encode_clip(Clip("x", 0, str(path)), SIZE, 90, 1)


def test_missing_file(tmp_path):
    with pytest.raises(VideoError, match=r"none\.mp4: cannot be decoded: No such file"):
        decode(tmp_path / "none.mp4")


def test_an_image_is_no_video(tmp_path):
    Image.fromarray(moving_bar(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match=r"a\.png: .*an image, not a video"):
        decode(tmp_path / "a.png")


def test_frame_folder_in_natural_order(tmp_path):
    for i in (10, 9, 1, 100):
        Image.fromarray(np.full((10, 10, 3), i, np.uint8)).save(tmp_path / f"img_{i}.png")
    (tmp_path / ".hidden.png").write_text("not an image")
    (tmp_path / "notes.txt").write_text("not an image")
    assert decode(tmp_path)[:, 0, 0, 0].tolist() == [1, 9, 10, 100]
    (tmp_path / "img_2.png").write_bytes(b"")
    with pytest.raises(VideoError, match=r"cannot be decoded after frame 1: frame img_2\.png"):
        decode(tmp_path)


def test_empty_frame_folder(tmp_path):
    with pytest.raises(VideoError, match="no frame found"):
        decode(tmp_path)


def test_natural_key():
    assert sorted(["b1", "a10", "a9", "10", "9", "a"], key=natural_key) == ["9", "10", "a", "a9", "a10", "b1"]


def test_part_of_a_file(tmp_path):
    """Twelve frames per second; the time of a frame is when it appears."""
    frames = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None, None], 3, 3).repeat(32, 1).repeat(32, 2)
    path = write_video(tmp_path / "a.mp4", frames, "libx264")
    whole = [frame.mean() for frame in read_frames(path, SIZE)]
    part = [frame.mean() for frame in read_frames(path, SIZE, (1.0, 2.01))]
    assert len(whole) == 48
    assert part == whole[12:25]
    assert [frame.mean() for frame in read_frames(path, SIZE, (0, 4.2))] == whole
    with pytest.raises(VideoError, match=r"cut off: it ends at 4\.00 of 5\.00 s"):
        list(read_frames(path, SIZE, (3, 5)))
    with pytest.raises(VideoError, match=r"a\.mp4: no frame found from 4\.10 to 4\.20 s"):
        list(read_frames(path, SIZE, (4.1, 4.2)))


# Number of decoded frames; None if nothing can be decoded.
REAL_VIDEOS = {
    "Golf_Tips_-_Hit_The_Driver_300+_Yards!!!_golf_f_nm_np1_fr_med_0.avi": 89,
    "cfr.avi": None,
    "vp8.webm": None,
    "vid.mp4": 49,
    "-video-with-dash-.mp4": 5,
    "fire2.mp4": 25,
    "no_duration.webm": 74,
    "transparent.webm": 150,
    "video_with_failing_audio.mp4": 280,
    "flipping_a_pancake.mkv": 310,
    "corrupted.mp4": 49,
    "unordered.mov": 4,
    "video_0.mov": 3,
    "video_90.mov": 3,
    "FlashVideo.flv": None,
    "Mpeg4.mp4": None,
    "webm.webm": 1,
    "demo.mp4": 280,
    "part_0.mp4": 32,
    "test.avi": 164,
    "h265_video.mp4": 10,
    "smth-smth-1.webm": 47,
    "bikes.mp4": 250,
    "task41/1.webm": 58,
    "task41/2.webm": 58,
    "task5/0.webm": 52,
    "task5/1.webm": 53,
    "task5/2.webm": 47,
    "imgs": 10,
}


@pytest.mark.skipif("RSA_JAX_REAL_VIDEOS" not in os.environ, reason="RSA_JAX_REAL_VIDEOS names no folder of videos")
@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos(name):
    root = pathlib.Path(os.environ["RSA_JAX_REAL_VIDEOS"])
    paths = [path for path in root.rglob(pathlib.Path(name).name) if path.as_posix().endswith(f"/{name}")]
    if not paths:
        pytest.skip(f"{name} is not in {root}")
    result = encode_clip(Clip(name, 0, str(paths[0])), SIZE, 90, 1)
    if REAL_VIDEOS[name] is None:
        assert isinstance(result, str)
        assert str(paths[0]) in result
    else:
        assert len(result) == REAL_VIDEOS[name]


@pytest.mark.skipif("RSA_JAX_REAL_VIDEOS" not in os.environ, reason="RSA_JAX_REAL_VIDEOS names no folder of videos")
def test_real_videos_are_prepared_or_reported(tmp_path):
    """Includes odd names, wrong extensions and bad files; four of them contain nothing to decode."""
    from rsa_jax.tools import prepare

    source = pathlib.Path(os.environ["RSA_JAX_REAL_VIDEOS"])
    videos = sorted(path for path in source.rglob("*") if path.is_file() and path.parent.name != "imgs")
    for i, path in enumerate(videos):
        target = tmp_path / f"source/{'ab'[i % 2]}/{i} {path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    folders = ["--source", str(tmp_path / "source"), "--data_dir", str(tmp_path / "data")]
    sizes = ["--height", "32", "--width", "32", "--max_failed_fraction", "0.2", "--workers", "2"]
    assert prepare.main(["video_folder", *folders, *sizes]) == 0
    report = json.loads(next((tmp_path / "data").rglob("report.json")).read_text())
    left_out = [clip["id"] for split in report["splits"].values() for clip in split["left_out"]]
    assert sorted(name.split(" ", 1)[1] for name in left_out) == ["FlashVideo.flv", "Mpeg4.mp4", "cfr.avi", "vp8.webm"]
    assert sum(split["stored"] for split in report["splits"].values()) == len(videos) - 4


def test_frame_rate(tmp_path):
    assert frame_rate(write_video(tmp_path / "a.avi", moving_bar(3))) == 12
    assert frame_rate(tmp_path) is None
    (tmp_path / "no.avi").write_text("no video")
    with pytest.raises(VideoError, match=r"no\.avi: cannot be decoded"):
        frame_rate(tmp_path / "no.avi")


def test_jpeg_back_to_frames():
    frames = moving_bar(3)
    decoded = decode_jpeg(encode_jpeg(frames, 95))
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 3


def test_videos_of_a_folder(tmp_path):
    paths = [tmp_path / name for name in ("b.mp4", "a/2.avi", "a/1.webm", "frames/1.jpg", "notes.txt", ".hidden.mp4")]
    paths += [tmp_path / "frames/thumbs/notes.txt", tmp_path / "a/preview.jpg"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    expected = [tmp_path / name for name in ("b.mp4", "a/1.webm", "a/2.avi", "frames")]
    assert list_videos(tmp_path) == expected
    assert list_videos(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
