"""Print what a workdir contains and how to view it.

python -m rsa_jax summary --workdir DIR
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rsa_jax.errors import in_one_line
from rsa_jax.flags import Parser, folder_or_url
from rsa_jax.training.workdir import read_config


def summarize(workdir: Path) -> str:
    """Summary of a workdir, a few lines of text.

    Raises:
        WorkdirError: If the workdir holds no run.
    """
    config = read_config(workdir)
    lines = [f"{config.model.transform} on {config.data.name}, {config.model.num_classes} classes"]
    if (workdir / "eval.json").exists():
        result = json.loads((workdir / "eval.json").read_text())
        lines.append(
            f"  {result['split']} top-1 {result['top1']:.1f} %, top-5 {result['top5']:.1f} % "
            f"({result['num_examples']} clips, step {result['step']})"
        )
    lines += [f"  checkpoints   {workdir / 'checkpoints'}", f"  TensorBoard   tensorboard --logdir {workdir}"]
    lines += [f"  image         {path}" for path in sorted(workdir.glob("*.png"))]
    lines += [f"  report        {path}" for path in workdir.glob("report.html")]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the summary."""
    parser = Parser("summary", __doc__)
    parser.add_argument("--workdir", type=folder_or_url, required=True, help="of a run")
    with in_one_line():
        print(summarize(parser.parse_args(argv).workdir))


if __name__ == "__main__":
    main()
