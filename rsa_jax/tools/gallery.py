"""Draws clips of the evaluation split with their true and predicted classes.

python -m rsa_jax.tools.gallery --workdir DIR --out picture.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from rsa_jax.errors import in_one_line
from rsa_jax.pictures.clips import Row, check_picture, draw_rows
from rsa_jax.training.checkpoints import read_config
from rsa_jax.training.run import restore_run
from rsa_jax.training.state import to_devices
from rsa_jax.training.step import View


def draw_predictions(
    frames: UInt8[np.ndarray, "N T H W 3"],
    label: Int[np.ndarray, " N"],
    probabilities: Float[np.ndarray, "N K"],
    class_names: Sequence[str],
    out: Path,
) -> None:
    """Draws one row per clip: its frames, and its true and predicted class, green if they agree and red otherwise.

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


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the first clips of the evaluation split."""
    parser = argparse.ArgumentParser("rsa_jax.tools.gallery", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a run")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--clips", type=int, default=10, help="at most, of the first batch (%(default)s)")
    parser.add_argument("--checkpoint", default="best", help="best, latest or a step (%(default)s)")
    parser.add_argument("--data_dir", help="where the prepared data set lies now, if it has moved")
    args = parser.parse_args(argv)
    with in_one_line(RuntimeError):
        check_picture(args.out)
        if args.clips < 1:
            raise ValueError(f"--clips: expected a positive number, got {args.clips}")
        config = read_config(args.workdir)
        if args.data_dir:
            config.data.data_dir = args.data_dir
        run, state = restore_run(config, args.workdir, args.checkpoint)
        batch = next(run.eval_batches())
    output = run.eval_step(state.params, state.batch_stats, to_devices(run.mesh, batch), View())
    count = min(args.clips, int(batch["mask"].sum()))
    probabilities = np.asarray(jax.nn.softmax(output["logits"]))[:count]
    draw_predictions(batch["frames"][:count], batch["label"][:count], probabilities, run.info.class_names, args.out)
    print(f"{count} clips drawn in {args.out}")


if __name__ == "__main__":
    main()
