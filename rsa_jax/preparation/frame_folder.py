"""A clip as a folder of images: which of them are its frames, and images as 8-bit RGB."""

import collections
import dataclasses
import os
import pathlib
import re
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from rsa_jax.extras import missing

try:
    from PIL import Image, ImageOps
except ModuleNotFoundError as error:
    raise missing(error, "train") from error

Frame = UInt8[np.ndarray, "H W 3"]

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".jp2"),
}
# Words in the name of a series of images that is optical flow, and names of folders of it.
_FLOW_WORDS = {"flow", "flowx", "flowy", "flowu", "flowv", "opticalflow", "optflow", "tvl"}
_FLOW_FOLDER = re.compile(r"((opt|optical|tvl1|tv-l1|raft)[_-]?)?flows?([_-]?[xyuv])?", re.IGNORECASE)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts img_2 before img_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


@dataclasses.dataclass
class FrameFolder:
    """The images of a folder.

    Attributes:
        paths: frames of the clip, in order.
        left_out: optical flow beside them: names, with "#" for their numbers, or folders.
    """

    paths: list[pathlib.Path]
    left_out: list[str]


def flow_folders(names: Sequence[str]) -> set[str]:
    """Those of the names of the folders and series of a clip that are folders of optical flow; none if all are."""
    return _beside_others({name for name in names if _FLOW_FOLDER.fullmatch(name)}, names)


def _flow_series(forms: Collection[str]) -> set[str]:
    flow = {form for form in forms if _FLOW_WORDS.intersection(re.findall("[a-z]+", form.lower()))}
    return _beside_others(flow, forms)


def _beside_others(flow: set[str], names: Collection[str]) -> set[str]:
    """The names of optical flow, with those of its components x, y or u, v beside one other name."""
    letters = {name: re.sub("[^a-z]", "", pathlib.PurePath(name).stem.lower()) for name in names}
    for pair in ({"x", "y"}, {"u", "v"}):
        components = {name for name in names if letters[name] in pair}
        if {letters[name] for name in components} == pair and len(names) - len(flow | components) == 1:
            flow = flow | components
    return flow if len(flow) < len(names) else set()


def is_image(name: str) -> bool:
    """Whether a name is that of a visible image file."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def by_series(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that differ only in their number, by their common form with "#" for the number."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        stem, suffix = os.path.splitext(name)
        groups[re.sub(r"\d+", "#", stem) + suffix.lower()].append(name)
    series: dict[str, list[str]] = {}
    for form, group in groups.items():
        numbers = [re.findall(r"\d+", os.path.splitext(name)[0]) for name in group]
        # Several numbers, as an index and a time, make one series if one of them tells all names apart.
        if any(len(set(column)) == len(group) for column in zip(*numbers, strict=True)):
            series[form] = group
            continue
        for name in group:
            stem, suffix = os.path.splitext(name)
            series.setdefault(re.sub(r"\d+(?=\D*$)", "#", stem) + suffix.lower(), []).append(name)
    return series


def find_frames(folder: pathlib.Path) -> FrameFolder:
    """Frames of a clip: the one series of images in a folder, or in its one subfolder beside folders of optical flow.

    Raises:
        ValueError: If there are several series; names them.
    """
    children = os.listdir(folder)
    names = [name for name in children if is_image(name)]
    if not names:
        inner = [name for name in children if not name.startswith(".") and os.path.isdir(folder / name)]
        flow = flow_folders(inner)
        rgb = [name for name in inner if name not in flow]
        if flow and len(rgb) == 1:
            found = find_frames(folder / rgb[0])
            return dataclasses.replace(found, left_out=[*sorted(flow), *found.left_out])
        return FrameFolder([], [])
    series = by_series(names)
    flow = _flow_series(series)
    rgb = sorted(series.keys() - flow)
    if len(rgb) > 1:
        some = ", ".join(f"{form} ({len(series[form])})" for form in rgb[:5])
        raise ValueError(f"expected images whose names differ only in their number, got {len(rgb)} series: {some}")
    frames = sorted(series[rgb[0]], key=natural_key)
    return FrameFolder([folder / name for name in frames], [f"{form} ({len(series[form])})" for form in sorted(flow)])


def read_image(path: pathlib.Path, size: tuple[int, int]) -> Frame:
    """Image as 8-bit RGB, resized to (height, width) and turned upright by its orientation tag.

    Raises:
        ValueError: If it cannot be decoded; names it.
    """
    try:
        with Image.open(path) as image:
            upright = _eight_bits(_oriented(image), *_sample_type(image))
            return np.asarray(upright.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"frame {path.name}: {error}") from error


def _oriented(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):  # the tags are damaged, not the image
        return image


def _sample_type(image: Image.Image) -> tuple[int, bool]:
    """Bits per grey sample of more than 8 bits, and whether it is signed. Only TIFF has other types than uint16."""
    tags: Mapping[int, Sequence[int]] = getattr(image, "tag_v2", {})
    return tags.get(258, (16,))[0], tags.get(339, (1,))[0] == 2


def _eight_bits(image: Image.Image, bits: int, signed: bool) -> Image.Image:
    """The image with grey samples of more than 8 bits scaled by the range of their type; floats range from 0 to 1."""
    values = np.asarray(image)
    if image.mode == "F":
        largest = 1.0
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"expected float samples from 0 to 1, got {values.min():g} to {values.max():g}")
    elif image.mode.startswith("I"):
        largest = 2.0 ** (bits - signed) - 1
        values = values.view(np.uint32) if bits == 32 and not signed else values
    else:
        return image
    return Image.fromarray(np.rint(np.clip(values / largest, 0, 1) * 255).astype(np.uint8))
