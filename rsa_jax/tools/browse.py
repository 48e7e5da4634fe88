"""Draw training clips as the network receives them: frames, crops, mirror images and labels.

python -m rsa_jax browse --config configs/motion.py --out clips.png [--clips 12] [--step 0] [--config.x=y ...]

With the configuration of a run, these are exactly the clips of that step of the run. A row begins with the clip's first
stored frame, with the crop outlined in green; the frames that the network receives follow. The title shows the label
and, in brackets, the clip's index in the split and its id. The title of a mirrored clip is blue and shows the stored
label if mirroring changes it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict

from rsa_jax.errors import in_one_line
from rsa_jax.flags import Parser, at_least, parse_with_config
from rsa_jax.input_pipeline.augmentation import to_pixels
from rsa_jax.input_pipeline.dataset_info import load_info
from rsa_jax.input_pipeline.pipeline import clip_ids, train_batches
from rsa_jax.input_pipeline.reading import Batch
from rsa_jax.logs import setup_logging
from rsa_jax.pictures.clip_figure import Row, check_picture, draw_rows
from rsa_jax.training.step import make_augment


def training_clips(config: ConfigDict, step: int, count: int) -> Batch:
    """First `count` clips of the run from the given step on."""
    size = config.batch_size
    end = step + -(-count // size)
    batches = list(train_batches(config.data, batch_size=size, seed=config.seed, start_step=step, num_steps=end))
    return {name: np.concatenate([batch[name] for batch in batches])[:count] for name in batches[0]}


def outlined(
    frame: UInt8[np.ndarray, "H W 3"], start: Int[np.ndarray, " 2"], size: Int[np.ndarray, " 2"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Copy of the frame with a green line along the inside of a crop."""
    line = max(1, min(frame.shape[:2]) // 80)
    crop, inside = (
        tuple(slice(first, last) for first, last in zip(start + off, start + size - off, strict=True))
        for off in (0, line)
    )
    drawn = frame.copy()
    drawn[crop] = (0, 255, 0)
    drawn[inside] = frame[inside]
    return drawn


def clip_rows(config: ConfigDict, step: int, count: int) -> list[Row]:
    """Rows of a figure: the first stored frame with its crop, and the frames that the network receives.

    Args:
        config: configuration of the run.
        step: step of the run, from 0.
        count: number of clips.

    Raises:
        ValueError: If a field of the configuration is invalid.
        PreparationError: If the data set is missing or damaged.
    """
    info = load_info(config.data)
    batch = training_clips(config, step, count)
    augmented = jax.device_get(jax.jit(make_augment(config, info.flip_pairs))(batch))
    ids = clip_ids(config.data, config.data.train_split, batch["index"])
    rows = []
    for i, clip in enumerate(to_pixels(augmented.clips)):
        label, stored = int(augmented.label[i]), int(batch["label"][i])
        origin = f" from {stored} {info.class_names[stored]}" if label != stored else ""
        note = f", mirrored{origin}" if augmented.mirrored[i] else ""
        title = f"{label} {info.class_names[label]}{note}   [{batch['index'][i]}: {ids[i]}]"
        first = outlined(batch["frames"][i, 0], augmented.start[i], augmented.size[i])
        rows.append(Row(title, "tab:blue" if augmented.mirrored[i] else "black", [first, *clip]))
    return rows


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("browse", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="image to write; the extension determines the format")
    add("--clips", type=at_least(1), default=12, help="number of clips (%(default)s)")
    add("--step", type=at_least(0), default=0, help="step of the run that the clips begin with (%(default)s)")
    return parse_with_config(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the figure."""
    args = _parse(argv)
    setup_logging()
    with in_one_line(RuntimeError):
        check_picture(args.out)
        rows = clip_rows(args.config, args.step, args.clips)
        draw_rows(rows, args.out)
    print(f"{len(rows)} clips of step {args.step} of {args.config.data.name}, as trained on: {args.out}")


if __name__ == "__main__":
    main()
