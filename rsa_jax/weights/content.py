"""Format of a weight file, told from its content."""

import os
import re
import zipfile
from pathlib import Path

# First bytes of a file of torch.save before PyTorch 1.6: a pickled magic number.
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_TENSORFLOW_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_AGAIN = "download or copy it again"
# What a file with these first bytes is, and what to do.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights: run `git lfs pull`, or download the file itself",
    b"model_checkpoint_path:": "the index of a TensorFlow checkpoint, which cannot be read",
    b"\x89HDF\r\n": "an HDF5 file, perhaps of Keras, which cannot be read",
    b"\x93NUMPY": "a single NumPy array: save arrays by name with numpy.savez",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard: unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
}
_PICKLE = (
    "a pickle that torch.save did not write, which is not read because a pickle can run code: "
    "save the weights with torch.save, as .safetensors or as .npz"
)


def identify(path: Path) -> str:
    """Format of a weight file: "torch", "safetensors" or "npz". The name of the file plays no part.

    Raises:
        ValueError: If the file is anything else. The message says what it is and what to do.
    """
    head, end = _ends(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _identify_zip(path)
    if head.startswith(_LEGACY_TORCH):
        return "torch"
    # The length of the header, then the header, which is JSON.
    if head[8:9] == b"{" and not any(head[4:8]):
        return "safetensors"
    raise ValueError(f"{path}: not a weight file, but {_describe(head, end, path.name)}")


def _ends(path: Path) -> tuple[bytes, bytes]:
    """First 512 and last 8 bytes of a file, or fewer if it is shorter."""
    with path.open("rb") as file:
        head = file.read(512)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        return head, file.read()


def _identify_zip(path: Path) -> str:
    """Format of a zip archive; both torch.save and numpy.savez write such."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if damaged := archive.testzip():  # PyTorch does not compare the checksums
                raise ValueError(f"checksum of {damaged}")
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path}: truncated or damaged (a zip archive of PyTorch or NumPy): {_AGAIN}") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"{path}: a TorchScript archive, which holds code beside the weights: save the weights alone, with "
            "torch.save(torch.jit.load(FILE).state_dict(), OTHER_FILE)"
        )
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if all(name.endswith(".npy") for name in names):
        return "npz"
    raise ValueError(f"{path}: a zip archive of {', '.join(names[:3])}: unpack it, and give the weight file in it")


def _describe(head: bytes, end: bytes, name: str) -> str:
    """Kind of a file that holds no weights, and the remedy."""
    if not head:
        return f"an empty file: {_AGAIN}"
    if not any(head):
        return f"a file that begins with zeros only, as a download that was cut off: {_AGAIN}"
    for start, description in _OTHERS.items():
        if head.startswith(start):
            return description
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PICKLE
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)", head, re.IGNORECASE):
        return "a web page, as servers send instead of a file that needs a login or a confirmation: download it again"
    if end == _TENSORFLOW_END or re.search(r"\.data-\d+-of-\d+$", name):
        return "part of a TensorFlow checkpoint, which cannot be read"
    text = head.decode("utf-8", errors="ignore")
    # The last character may be cut.
    if len(text.encode()) > len(head) - 4 and "".join(text.split()).isprintable():
        return f"text that begins with {' '.join(text.split())[:60]!r}: {_AGAIN}"
    return "of an unknown format; expected a file of torch.save, .safetensors or .npz"
