import io
import shutil
import tarfile
import zipfile
from collections import namedtuple

import pytest

from rsa_jax.preparation.archives import ArchiveError, find_archives, unpack_all


def unpack(root):
    unpack_all(find_archives(root), root / "target")
    return sorted(str(path.relative_to(root / "target")) for path in (root / "target").rglob("*") if path.is_file())


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_tar(path, *members, mode="w:gz"):
    level = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(path, mode, **level) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_named_and_leaves_nothing(tmp_path, kind):
    """300 MB of zeros in about 1 MB."""
    (tmp_path / "source").mkdir()
    path = tmp_path / f"source/bomb.{kind}"
    content = {f"{i}.avi": bytes(10_000_000) for i in range(30)}
    if kind == "zip":
        write_zip(path, content)
    else:
        write_tar(path, *(member(*item) for item in content.items()))
    with pytest.raises(ArchiveError, match=rf"bomb\.{kind}: not unpacked: expected at most 268,435,456 bytes"):
        unpack_all(find_archives(tmp_path / "source"), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_bomb_in_an_archive(tmp_path):
    bomb = io.BytesIO()
    write_zip(bomb, {f"{i}.avi": bytes(10_000_000) for i in range(30)})
    write_zip(tmp_path / "a.zip", {"inner/b.zip": bomb.getvalue(), "film.avi": b"film"})
    with pytest.raises(ArchiveError, match=r"inner/b\.zip: not unpacked"):
        unpack(tmp_path)
    assert not (tmp_path / "target").exists()


def test_a_declared_size_that_is_too_small(tmp_path):
    """More content than declared is not written."""
    write_zip(tmp_path / "a.zip", {"film.avi": bytes(100_000)})
    size = (100_000).to_bytes(4, "little")
    path = tmp_path / "a.zip"
    path.write_bytes(path.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(ArchiveError, match=r"a\.zip: cannot be unpacked"):
        unpack(tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "target").rglob("*.avi")) <= 10


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_disk_without_room(tmp_path, monkeypatch, kind):
    usage = namedtuple("usage", "total used free")(1 << 30, 1 << 30, (1 << 26) + 50)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    if kind == "zip":
        write_zip(tmp_path / "a.zip", {"film.avi": bytes(100)})
    else:
        write_tar(tmp_path / "a.tar", member("film.avi", bytes(100)), mode="w")
    with pytest.raises(
        ArchiveError, match=rf"a\.{kind}: not unpacked: the disk of .* 100 bytes are needed, 50 are left"
    ):
        unpack(tmp_path)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "bad",
    [
        member("../../escaped.avi", b"film"),
        member("link", type=tarfile.SYMTYPE, linkname="../../.."),
        member("hard", type=tarfile.LNKTYPE, linkname="../../../escaped.avi"),
        member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("pipe", type=tarfile.FIFOTYPE),
    ],
)
def test_a_tar_file_writes_only_files_below_its_folder(tmp_path, bad):
    (tmp_path / "source").mkdir()
    write_tar(tmp_path / "source/a.tar.gz", bad)
    with pytest.raises(ArchiveError, match=r"a\.tar\.gz: cannot be unpacked"):
        unpack(tmp_path / "source")
    assert not list(tmp_path.rglob("escaped.avi"))
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_fifo() or path.is_char_device()]


def test_a_zip_file_writes_only_below_its_folder(tmp_path):
    (tmp_path / "source").mkdir()
    write_zip(tmp_path / "source/a.zip", {"../../../escaped.avi": b"film", "/absolute.avi": b"film"})
    assert {"outer/escaped.avi", "outer/absolute.avi"} <= set(unpack(tmp_path / "source"))
    assert not (tmp_path / "escaped.avi").exists()


@pytest.mark.parametrize("name", ["[a] *?%03d:", "two\nlines", "é" * 120, "x" * 240])
def test_odd_names(tmp_path, name):
    source = tmp_path / name
    source.mkdir()
    write_zip(source / f"{name}.zip", {f"{name}/film.avi": b"film"})
    write_tar(source / f"{name}.tar", member(f"{name}/other.avi", b"film"), mode="w")
    unpacked = unpack(source)
    assert {f"outer/{name}/film.avi", f"outer/{name}/other.avi"} <= set(unpacked)
