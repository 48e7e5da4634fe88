"""Draw clips of the evaluation split with their true and predicted classes.

python -m rsa_jax gallery --workdir DIR --out image.png [--clips 10]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from rsa_jax.errors import in_one_line
from rsa_jax.evaluation.evaluator import open_workdir
from rsa_jax.evaluation.views import View
from rsa_jax.flags import Parser, at_least, folder_or_url
from rsa_jax.pictures.clip_figure import Row, check_picture, draw_rows
from rsa_jax.training.mesh import to_devices
from rsa_jax.training.workdir import read_config


def draw_predictions(
    frames: UInt8[np.ndarray, "N T H W 3"],
    label: Int[np.ndarray, " N"],
    probabilities: Float[np.ndarray, "N K"],
    class_names: Sequence[str],
    out: Path,
) -> None:
    """Draw one row per clip: its frames, and its true and predicted class, green if they agree and red otherwise.

    Args:
        frames: stored frames.
        label: true classes.
        probabilities: probabilities of all classes.
        class_names: names in the order of the classes.
        out: image file to write; the extension determines the format.
    """
    rows = []
    for clip, true, probability in zip(frames, label, probabilities, strict=True):
        predicted = int(np.argmax(probability))
        title = f"{class_names[true]}   predicted: {class_names[predicted]} ({probability[predicted]:.0%})"
        rows.append(Row(title, "tab:green" if predicted == true else "tab:red", clip))
    draw_rows(rows, out)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("gallery", __doc__)
    add = parser.add_argument
    add("--workdir", type=folder_or_url, required=True, help="of a run")
    add("--out", type=Path, required=True, help="image to write; the extension determines the format")
    add("--clips", type=at_least(1), default=10, help="number of clips, at most one batch (%(default)s)")
    add("--checkpoint", default="best", help="best, latest or a step (%(default)s)")
    add("--data_dir", help="folder of prepared data sets, if it has moved")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the first clips of the evaluation split."""
    args = _parse(argv)
    with in_one_line(RuntimeError):
        check_picture(args.out)
        config = read_config(args.workdir)
        if args.data_dir:
            config.data.data_dir = args.data_dir
        evaluator, state = open_workdir(config, args.workdir, args.checkpoint)
        batch = next(evaluator.batches())
    output = evaluator.eval_step(state.params, state.batch_stats, to_devices(evaluator.mesh, batch), View())
    count = min(args.clips, int(batch["mask"].sum()))
    probabilities = np.asarray(jax.nn.softmax(output["logits"]))[:count]
    draw_predictions(
        batch["frames"][:count], batch["label"][:count], probabilities, evaluator.info.class_names, args.out
    )
    print(f"{count} clips drawn in {args.out}")


if __name__ == "__main__":
    main()
