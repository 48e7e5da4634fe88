"""Images embedded in a page as data URIs."""

import base64
import io

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

# Height of a strip's frames and gap between them in pixels, JPEG quality, and maximum number of frames.
HEIGHT, GAP, QUALITY, FRAMES = 72, 2, 75, 8
# Colours of right and wrong predictions, visible on white and on black.
RIGHT, WRONG = (47, 111, 222), (224, 98, 30)


def strip(frames: UInt8[np.ndarray, "T H W 3"]) -> str:
    """Frames side by side; longer clips are subsampled evenly to `FRAMES` frames."""
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    width = max(1, round(HEIGHT * frames.shape[2] / frames.shape[1]))
    image = Image.new("RGB", (len(chosen) * (width + GAP) - GAP, HEIGHT), "white")
    for place, number in enumerate(chosen):
        frame = Image.fromarray(frames[number]).resize((width, HEIGHT), Image.Resampling.BILINEAR)
        image.paste(frame, (place * (width + GAP), 0))
    return _data_uri(image, "jpeg", quality=QUALITY)


def matrix_image(matrix: Int[np.ndarray, "K K"]) -> str:
    """Image of a confusion matrix: one pixel per cell, more opaque for a larger fraction of the row."""
    fraction = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    opacity = np.where(matrix > 0, 0.15 + 0.85 * np.sqrt(fraction), 0)
    pixels = np.zeros((*matrix.shape, 4), np.uint8)
    pixels[..., :3] = WRONG
    np.einsum("iic->ic", pixels)[:, :3] = RIGHT
    pixels[..., 3] = np.round(255 * opacity)
    return _data_uri(Image.fromarray(pixels), "png", optimize=True)


def _data_uri(image: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
