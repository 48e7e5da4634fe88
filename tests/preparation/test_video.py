import io
import json
import os
import pathlib
import re
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from rsa_jax.preparation.clip import Clip, encode_clip
from rsa_jax.preparation.video import VideoError, decode_jpeg, encode_jpeg, frame_rate, read_frames
from tests.preparation.videos import display_matrix, image_bytes, moving_bar, write_at, write_video, write_with_cover

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


@pytest.mark.parametrize(
    "matrix, expected",
    [
        ((1, 0, 0, 1), lambda frames: frames),
        ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
        ((1, 0, 0, -1), lambda frames: frames[:, ::-1]),
        ((-1, 0, 0, -1), lambda frames: frames[:, ::-1, ::-1]),
        ((0, 1, -1, 0), lambda frames: np.rot90(frames, -1, (1, 2))),
        ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, (1, 2))),
        ((0, 1, 1, 0), lambda frames: frames.swapaxes(1, 2)),
        ((0, -1, -1, 0), lambda frames: frames.swapaxes(1, 2)[:, ::-1, ::-1]),
    ],
)
def test_display_matrix(tmp_path, matrix, expected):
    """Rotation and mirror; the matrix is (a, b, c, d) with column' = a column + c row, row' = b column + d row."""
    frames = moving_bar(4, 48, 48)
    path = display_matrix(write_video(tmp_path / "a.mp4", frames, "libx264"), *matrix)
    assert np.abs(decode(path, (48, 48)).astype(int) - expected(frames)).mean() < 12


@pytest.mark.parametrize("first", [True, False])
def test_cover_art_is_not_the_film(tmp_path, first):
    path = write_with_cover(tmp_path / "a.mp4", moving_bar(10), first=first)
    assert len(decode(path)) == 10
    assert frame_rate(path) == 12


def test_music_with_a_cover_is_no_video(tmp_path):
    path = write_with_cover(tmp_path / "song.mp4", moving_bar(0), first=True)
    for read in (decode, frame_rate):
        with pytest.raises(VideoError, match=r"song\.mp4: .*only an attached picture \(cover art\)"):
            read(path)


def archive(kind):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a", b"film" * 500)
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as file:
            file.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("README.txt", b"Clips of the left class.\nOne each.\n" * 20, "text, not a video"),
        ("release.nfo", b"a group presents\n", "text, not a video"),
        ("a.mp4", archive("zip"), r"an archive \(zip\)"),
        ("a.avi", archive("gz"), r"an archive \(gzip\)"),
        ("a.mov", archive(""), r"an archive \(tar\)"),
        ("a.srt", b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n", "no video stream"),
        ("a.ico", image_bytes("ICO"), "an image, not a video"),
        ("a.mp4", image_bytes("JPEG"), "an image, not a video"),
        ("a.tiff", image_bytes("TIFF"), "an image, not a video"),
        ("a.gif", image_bytes("GIF"), "an image, not a video"),
    ],
)
def test_other_files_are_no_videos(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=rf"{re.escape(name)}: cannot be decoded: .*{message}"):
        decode(tmp_path / name)


@pytest.mark.parametrize("brand, frames", [(b"isom", 3), (b"heic", None), (b"avif", None), (b"mif1", None)])
def test_a_photo_in_the_container_of_a_film_is_no_video(tmp_path, brand, frames):
    path = write_video(tmp_path / "a.mp4", moving_bar(3), "libx264")
    path.write_bytes(path.read_bytes().replace(b"ftypisom", b"ftyp" + brand, 1))
    if frames:
        assert len(decode(path)) == frames
        return
    with pytest.raises(VideoError, match="an image, not a video"):
        decode(path)


def test_a_bare_stream_is_a_video_only_by_its_extension(tmp_path):
    path = write_video(tmp_path / "a.m2v", moving_bar(12), "mpeg2video", "mpeg2video")
    assert len(decode(path)) == 12
    with pytest.raises(VideoError, match=r"notes\.dat: .*not a video by its extension"):
        decode(path.rename(tmp_path / "notes.dat"))


def test_a_gif_may_hold_its_last_frame(tmp_path):
    images = [Image.fromarray(frame) for frame in moving_bar(10)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100] * 9 + [3000])
    assert len(decode(tmp_path / "a.gif")) == 10


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")])
@pytest.mark.parametrize("start", [0, 10])
def test_held_frames_and_late_clocks(tmp_path, name, codec, start):
    times = [start + time for time in (0, 0.1, 0.2, 0.3, 5, 5.1)]
    path = write_at(tmp_path / name, moving_bar(len(times)), times, hold=4.0, codec=codec)
    assert len(decode(path)) == len(times)
    assert len(list(read_frames(path, SIZE, (0.05, 5.05)))) == 4


def test_a_late_clock_hides_no_cut(tmp_path):
    path = write_at(tmp_path / "a.mkv", moving_bar(40), [10 + i / 10 for i in range(40)], hold=0.1, codec="mjpeg")
    assert len(decode(path)) == 40
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"cut off: it ends at [12]\.\d+ of 4\.0\d s"):
        decode(path)


@pytest.mark.parametrize("every, fails", [(20, False), (2, True), (1, True)])
def test_damaged_packets_count_as_missing(tmp_path, every, fails):
    """Every `every`-th packet is overwritten."""
    path = write_video(tmp_path / "a.avi", moving_bar(60), "mjpeg")
    content = bytearray(path.read_bytes())
    places = [match.start() for match in re.finditer(rb"00dc", bytes(content[: content.index(b"idx1")]))]
    for place in places[::every][1:] if every > 1 else places:
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        content[place + 8 : place + 8 + size] = bytes(size)
    path.write_bytes(content)
    if not fails:
        assert 57 <= len(decode(path)) <= 60
        return
    with pytest.raises(VideoError, match=r"a\.avi: .*(damaged or encrypted: \d+ of \d+ frames|no frame found)"):
        decode(path)


def test_corrupt_frames_count_as_missing(tmp_path):
    """Encrypted: the headers are legible, the content is noise; FFmpeg returns pictures that it marks as corrupt."""
    rng = np.random.default_rng(0)
    path = write_video(tmp_path / "a.h264", rng.integers(0, 255, (48, 48, 64, 3), np.uint8), "libx264", "h264")
    assert len(decode(path)) == 48
    units = re.split(rb"(?=\x00\x00\x01)", path.read_bytes())
    for i, unit in enumerate(units):
        if unit[3:4] and unit[3] & 31 == 1:  # a picture that refers to others
            units[i] = unit[:20] + rng.integers(1, 255, max(len(unit) - 21, 0), np.uint8).tobytes() + unit[-1:]
    path.write_bytes(b"".join(units))
    with pytest.raises(VideoError, match=r"a\.h264: .*damaged or encrypted: [1-4]\d of 48 frames are corrupt"):
        decode(path)


@pytest.mark.parametrize("stated, fails", [(12, False), (11, False), (6, True), (30, True)])
def test_the_number_of_frames_of_a_list(tmp_path, stated, fails):
    path = write_video(tmp_path / "a.avi", moving_bar(12))
    result = encode_clip(Clip("a", 0, str(path), num_frames=stated), SIZE, 90, 5)
    if fails:
        assert (
            result == f"{path}: cannot be decoded after frame 3: expected {stated} frames, as the list states, got 12"
        )
    else:
        assert len(result) == 3


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
