import codecs

import pytest

from rsa_jax.preparation.datasets.kinetics import read_table
from rsa_jax.preparation.datasets.lists import numbered_lines, read_lines, read_names, read_text
from rsa_jax.preparation.datasets.video_folder import read_list
from rsa_jax.preparation.store import PreparationError

TEXT = "left/été 1.mp4\t12 0\r\n\nright/b.mp4 1\r\n\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_unicode_in_any_encoding(tmp_path, encoding):
    path = tmp_path / "list.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    assert numbered_lines(path) == [(1, "left/été 1.mp4\t12 0"), (3, "right/b.mp4 1")]
    assert [(clip.id, clip.num_frames, clip.label) for clip in read_list(path, tmp_path)] == [
        ("left/été 1.mp4", 12, 0),
        ("right/b.mp4", None, 1),
    ]


@pytest.mark.parametrize(
    "content, message",
    [
        ("gauche\nété\n".encode("latin-1"), r"line 2: expected text in UTF-8, got the bytes e9"),
        ("左\n".encode("gbk"), r"line 1: expected text in UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\0b", r"expected text in UTF-16"),
    ],
)
def test_other_encodings_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    for read in (read_text, read_lines, read_names):
        with pytest.raises(PreparationError, match=rf"names\.txt, {message}" if "line" in message else message):
            read(tmp_path / "names.txt")


def test_names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("left\u2028side \r\nright\r\n\r\n\n", newline="")
    assert read_names(path) == ["left\u2028side", "right"]
    path.write_text("left\n\nright\n")
    with pytest.raises(PreparationError, match=r"names\.txt, line 2: expected a class name, got an empty line"):
        read_names(path)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_tables(tmp_path, encoding, delimiter):
    rows = [["label", "youtube_id", "time_start", "time_end"], ["été", "-a_b", "3", "13"]]
    path = tmp_path / "train.csv"
    path.write_bytes("".join(delimiter.join(row) + "\r\n" for row in [*rows, []]).encode(encoding))
    assert read_table(path) == [("été", "-a_b_000003_000013")]
    path.write_bytes("label,youtube_id\n\xe9".encode("latin-1"))
    with pytest.raises(PreparationError, match=r"train\.csv, line 2: expected text in UTF-8"):
        read_table(path)
