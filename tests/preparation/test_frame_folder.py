import re
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from rsa_jax.preparation.frame_folder import by_series, find_frames, flow_folders, natural_key, read_image
from rsa_jax.preparation.video import VideoError, read_frames
from tests.preparation.videos import moving_bar

SIZE = (48, 64)


def decode(path, **options):
    return np.stack(list(read_frames(path, SIZE, **options)))


def write(folder, *names):
    """Images whose grey value is the number in their name; those of optical flow are white."""
    for name in names:
        value = 255 if re.search("flow|[uvxy]_|/[uvxy]/", name) else int(re.findall(r"\d+", name)[-1])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10), (value,) * 3).save(folder / name)
    return folder


def test_a_folder_of_frames_has_no_parts(tmp_path):
    Image.fromarray(moving_bar(1)[0]).save(tmp_path / "img_1.png")
    with pytest.raises(VideoError, match="has no timestamps"):
        list(read_frames(tmp_path, SIZE, (0, 1)))


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


@pytest.mark.parametrize(
    "rgb, flow",
    [
        ("img_{:05d}.png", ["flow_x_{:05d}.png", "flow_y_{:05d}.png"]),
        ("{:06d}.png", ["u_{:06d}.png", "v_{:06d}.png"]),
        ("image_{:d}.PNG", ["x_{:d}.png", "y_{:d}.png"]),
        ("frame{:06d}.png", ["flow_{:06d}.png"]),
        ("img_{:d}.png", ["img_flow_x_{:d}.png", "img_flow_y_{:d}.png"]),
        ("img/{:d}.png", ["flow_x/{:d}.png", "flow_y/{:d}.png"]),
        ("rgb/{:d}.png", ["u/{:d}.png", "v/{:d}.png"]),
        ("img_{:d}.png", ["flow/x_{:d}.png"]),
    ],
)
def test_optical_flow_is_no_frame(tmp_path, rgb, flow):
    write(tmp_path, *(name.format(i) for name in (rgb, *flow) for i in range(8, 12)))
    assert decode(tmp_path)[:, 0, 0, 0].tolist() == [8, 9, 10, 11]
    found = find_frames(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == [rgb.format(i) for i in range(8, 12)]
    assert bool(found.left_out) != (flow == ["flow/x_{:d}.png"])  # a subfolder of a folder of frames is no series


@pytest.mark.parametrize(
    "names, message",
    [
        (["img_1.png", "img_2.png", "depth_1.png"], r"2 series: depth_#\.png \(1\), img_#\.png \(2\)"),
        (["cam1_1.png", "cam2_1.png", "cam1_2.png", "cam2_2.png"], r"cam1_#\.png \(2\), cam2_#\.png \(2\)"),
        (["img_1.png", "img_1.jpg"], r"img_#\.jpg \(1\), img_#\.png \(1\)"),
        (["img_1.png", "u_1.png"], "2 series"),
    ],
)
def test_several_series_are_refused_by_name(tmp_path, names, message):
    with pytest.raises(VideoError, match=rf"{tmp_path.name}: .*differ only in their number, got .*{message}"):
        decode(write(tmp_path, *names))


def test_what_only_resembles_optical_flow(tmp_path):
    assert len(decode(write(tmp_path / "a", "flow_1.png", "flow_2.png"))) == 2  # nothing else is there
    assert len(decode(write(tmp_path / "b", "overflow_1.png", "overflow_2.png"))) == 2
    assert flow_folders(["x", "y", "z", "w"]) == flow_folders(["flow 1", "water_flow", "a"]) == set()


def test_frames_with_several_numbers_are_one_series():
    assert by_series(["clip2_t0.1_1.jpg", "clip2_t0.1_2.jpg"]).keys() == {"clip#_t#.#_#.jpg"}
    assert by_series(["1_0.50.jpg", "2_0.50.jpg"]).keys() == {"#_#.#.jpg"}


def test_number_of_frames_of_a_list(tmp_path):
    write(tmp_path, *(f"{name}_{i}.png" for name in ("img", "flow_x", "flow_y") for i in range(1, 7)))
    assert len(decode(tmp_path, num_frames=6, stride=4)) == 2
    with pytest.raises(VideoError, match="expected 10 frames, as the list states, got 6"):
        decode(tmp_path, num_frames=10)


RAMP = np.linspace(0, 1, 64)[None].repeat(48, 0)


@pytest.mark.parametrize(
    "values, name",
    [
        ((RAMP * 255).astype(np.uint8), "a.png"),
        ((RAMP * 65535).astype(np.uint16), "a.png"),
        ((RAMP * 65535).astype(">u2"), "a.tif"),
        ((RAMP * (2**31 - 1)).astype(np.int32), "a.tiff"),
        (RAMP.astype(np.float32), "a.tif"),
    ],
)
def test_samples_of_many_bits_are_scaled_by_their_range(tmp_path, values, name):
    Image.fromarray(values).save(tmp_path / name)
    frame = read_image(tmp_path / name, SIZE)
    assert frame.dtype == np.uint8
    assert np.abs(frame - 255 * RAMP[..., None]).max() <= 1


def test_rgb_of_16_bits(tmp_path):
    """A PNG file; Pillow writes none."""
    frame = moving_bar(1)[0]
    (tmp_path / "a.png").write_bytes(png_of_16_bits(frame))
    assert np.abs(read_image(tmp_path / "a.png", SIZE).astype(int) - frame).max() <= 1


def png_of_16_bits(frame):
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *frame.shape[:2], "rgb48be"
    encoder.time_base = Fraction(1, 25)
    image = av.VideoFrame.from_ndarray(frame.astype(np.uint16) * 257, "rgb48le").reformat(format="rgb48be")
    return b"".join(bytes(packet) for packet in [*encoder.encode(image), *encoder.encode()])


def test_floats_beyond_their_range_are_refused(tmp_path):
    Image.fromarray((255 * RAMP).astype(np.float32)).save(tmp_path / "1.tif")
    with pytest.raises(VideoError, match=r"frame 1\.tif: expected float samples from 0 to 1, got 0 to 255"):
        decode(tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag(tmp_path, orientation, mode):
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),  # stored so that a quarter turn clockwise makes it upright
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }
    frame = moving_bar(1)[0] if mode == "RGB" else (RAMP * 65535 * np.linspace(0, 1, 48)[:, None]).astype(np.uint16)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(turned[orientation](frame))).save(tmp_path / "a.png", exif=exif)
    expected = frame if mode == "RGB" else frame[..., None] / 257
    assert np.abs(read_image(tmp_path / "a.png", SIZE) - expected.astype(float)).max() <= 1


def test_damaged_tags_are_ignored(tmp_path):
    Image.fromarray(moving_bar(1)[0]).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
    assert read_image(tmp_path / "a.jpg", SIZE).shape == (*SIZE, 3)


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(moving_bar(1)[0]).convert(mode)
    image.save(tmp_path / "a.tif")
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read_image(tmp_path / "a.tif", SIZE) - expected).max() <= 1
