"""The `motion` data set: synthetic clips from a seeded program, whose class is the kind of motion.

A clip shows two objects on a background. Five quantities describe a frame: column and row of the midpoint between
the objects, their size, their distance, and the angle by which they and the line between them are rotated. Each
class moves one quantity, forward or backward in time, and freezes the other four. A frozen quantity takes the value
of a moving one at a random frame. A single frame therefore has the same distribution in every class, and the two
classes of a pair hold the same frames in reversed order.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8

from rsa_jax.preparation.builder import ClipBuilder, ClipConfig
from rsa_jax.preparation.clip import Clip

# Pairs of classes; the second of a pair is the first reversed in time. Pair k moves quantity k.
CLASS_NAMES = (
    *("moving left", "moving right", "moving up", "moving down"),
    *("growing", "shrinking", "turning left", "turning right"),
    *("approaching", "separating"),
)
# Flip pairs, as `ClipBuilder.flip_pairs`.
FLIP_PAIRS = ((0, 1), (6, 7))

# Shapes as unions of convex parts. A part is a list of half-planes (x, y, d): points with x·px + y·py <= d.
# No shape is rotationally symmetric. Each roughly fills the unit disc.
_Part = tuple[tuple[float, float, float], ...]


def _box(left: float, right: float, top: float, bottom: float) -> _Part:
    return (-1, 0, -left), (1, 0, right), (0, -1, -top), (0, 1, bottom)


_SLOPE = 1 / 2**0.5
SHAPES: tuple[tuple[_Part, ...], ...] = (
    # flag: a pole and a triangle
    (_box(-0.7, -0.35, -1, 1), ((-1, 0, 0.7), (_SLOPE, _SLOPE, 0.2), (_SLOPE, -_SLOPE, 0.9))),
    # L
    (_box(-0.7, -0.15, -1, 1), _box(-0.7, 0.7, 0.45, 1)),
    # arrow: a shaft and a head
    (_box(-0.3, 0.3, -0.1, 1), ((0, 1, 0.05), (_SLOPE, -_SLOPE, 0.7), (-_SLOPE, -_SLOPE, 0.7))),
    # T
    (_box(-0.9, 0.9, -0.9, -0.35), _box(-0.28, 0.28, -0.9, 1)),
    # wedge: a triangle with a right angle
    (((-1, 0, 0.65), (0, 1, 0.7), (_SLOPE, -_SLOPE, 0.45)),),
)


@dataclasses.dataclass(eq=False, kw_only=True)
class MotionConfig(ClipConfig):
    """Options of the data set: clips per split, frames per clip, frame size, and the seed."""

    num_train: int = 4000
    num_validation: int = 1000
    num_frames: int = 12
    height: int = 36
    width: int = 36
    seed: int = 0


def quantities(rng: np.random.Generator, num_frames: int) -> Float[np.ndarray, "5 T"]:
    """All quantities in motion: column, row, log size, angle, log distance.

    Columns and rows point right and down from the centre; half a frame is 1. Angles are in radians,
    counter-clockwise as seen. Time runs as in the first class of each pair.
    """
    size, distance = rng.uniform(0.24, 0.28), rng.uniform(0.38, 0.45)
    column, row = rng.uniform(0.65, 0.95, 2) * (-1, -1)
    change = np.array(
        [
            column,
            row,
            np.log(rng.uniform(1.6, 1.9)),
            rng.uniform(np.pi / 3, np.pi),
            -np.log(rng.uniform(2.2, 2.7)),
        ]
    )
    start = np.array([-column / 2, -row / 2, np.log(size), rng.uniform(0, 2 * np.pi), np.log(distance) - change[4]])
    start[:2] += rng.uniform(-0.1, 0.1, 2)
    return start[:, None] + change[:, None] * np.linspace(0, 1, num_frames)


def trajectory(rng: np.random.Generator, label: int, num_frames: int) -> Float[np.ndarray, "5 T"]:
    """Quantities over a clip of class `label`: one moves, each of the others is frozen at a random frame."""
    moving = quantities(rng, num_frames)
    frozen_at = rng.integers(num_frames, size=len(moving))
    states = np.repeat(moving[np.arange(len(moving)), frozen_at][:, None], num_frames, axis=1)
    states[label // 2] = moving[label // 2]
    return states[:, ::-1] if label % 2 else states


def _grid(height: int, width: int) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Column and row coordinates of the pixel centres; half the short side is 1."""
    short = min(height, width)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return (2 * columns + 1 - width) / short, (2 * rows + 1 - height) / short


def _coverage(
    shape: Sequence[_Part], x: Float[np.ndarray, "T H W"], y: Float[np.ndarray, "T H W"], pixels: np.ndarray
) -> Float[np.ndarray, "T H W"]:
    """Fraction of each pixel inside the shape; x and y are in shape coordinates, with `pixels` pixels per unit."""
    parts = [functools.reduce(np.maximum, [a * x + b * y - np.float32(d) for a, b, d in part]) for part in shape]
    return np.clip(0.5 - functools.reduce(np.minimum, parts) * pixels, 0, 1)


def _stripes(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, colours: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "... 3"]:
    """Soft stripes of random direction and width between two colours."""
    angle, frequency, phase = rng.uniform((0, 1, 0), (np.pi, 5, 2 * np.pi))
    wave = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase, dtype=np.float32)
    return colours[0] + (0.5 + 0.5 * wave[..., None]) * (colours[1] - colours[0])


def _colours(rng: np.random.Generator, bright: bool) -> Float[np.ndarray, "2 3"]:
    """Two similar colours. Bright and dark pairs contrast with each other."""
    low, high = (0.62, 1.0) if bright else (0.0, 0.38)
    base = rng.uniform(low, high, 3)
    return np.clip(base + rng.uniform(-0.2, 0.2, (2, 3)), low, high).astype(np.float32)


def _draw_thing(
    rng: np.random.Generator,
    frames: Float[np.ndarray, "T H W 3"],
    places: Float[np.ndarray, "2 T"],
    log_size: Float[np.ndarray, " T"],
    angle: Float[np.ndarray, " T"],
    bright: bool,
) -> Float[np.ndarray, "T H W 3"]:
    """Draws one object of random shape and texture over the frames, at `places` (column, row)."""
    columns, rows = _grid(*frames.shape[1:3])
    size, cos, sin, column, row = (
        v.astype(np.float32)[:, None, None] for v in (np.exp(log_size), np.cos(angle), np.sin(angle), *places)
    )
    dx, dy = (columns - column) / size, (rows - row) / size
    x, y = cos * dx - sin * dy, sin * dx + cos * dy
    pixels = size * min(frames.shape[1:3]) / 2
    cover = _coverage(SHAPES[rng.integers(len(SHAPES))], x, y, pixels)[..., None]
    return frames + cover * (_stripes(rng, x, y, _colours(rng, bright)) - frames)


def draw(seed: tuple[int, ...], label: int, num_frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, "T H W 3"]:
    """One clip: the same `seed` and `label` give the same pixels."""
    rng = np.random.default_rng(np.random.SeedSequence(seed[0], spawn_key=seed[1:]))
    column, row, log_size, angle, log_distance = trajectory(rng, label, num_frames)
    bright = bool(rng.integers(2))
    background = _stripes(rng, *_grid(*size), _colours(rng, not bright))
    background += rng.normal(0, 0.03, background.shape)
    frames = np.repeat(background[None].astype(np.float32), num_frames, axis=0)
    axis = rng.uniform(0, 2 * np.pi)
    for side in (-0.5, 0.5):
        offset = side * np.exp(log_distance)
        # The pair rotates as a whole, as its objects do.
        places = np.stack([column + offset * np.cos(axis + angle), row - offset * np.sin(axis + angle)])
        frames = _draw_thing(rng, frames, places, log_size, angle + rng.uniform(0, 2 * np.pi), bright)
    return np.clip(frames * 255 + 0.5, 0, 255).astype(np.uint8)


class Motion(ClipBuilder):
    """Ten classes of motion, in five time-reversed pairs."""

    configs = [  # noqa: RUF012
        MotionConfig(name="default"),
        MotionConfig(name="tiny", num_train=64, num_validation=32),  # for tests
    ]
    class_names = CLASS_NAMES
    flip_pairs = FLIP_PAIRS

    def clips(self) -> dict[str, Sequence[Clip]]:
        """Clips by split, each with its own seed. Class sizes differ by at most one."""
        config = self.builder_config
        sizes = {tfds.Split.TRAIN: config.num_train, tfds.Split.VALIDATION: config.num_validation}
        return {
            str(split): [self._clip(number, str(split), i) for i in range(size)]
            for number, (split, size) in enumerate(sizes.items())
        }

    def _clip(self, split_number: int, split: str, i: int) -> Clip:
        label, seed = i % len(CLASS_NAMES), (self.builder_config.seed, split_number, i)
        source = functools.partial(draw, seed, label, self.builder_config.num_frames, self.frame_size)
        return Clip(f"{split}_{i:05d}", label, source)

    def origin(self) -> dict[str, Any]:
        """Generating program and its seed."""
        return {"source": "drawn by rsa_jax.preparation.datasets.motion", "seed": self.builder_config.seed}
