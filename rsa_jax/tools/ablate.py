"""Train the variants of a study over several seeds, and write the results as a table and a plot.

python -m rsa_jax ablate --config configs/motion.py --study transforms --out ablations [--seeds 3]
    [--variants PATTERN ...]

Studies are defined in rsa_jax/studies/definitions.py. --variants trains only the variants whose names match a pattern,
in which * matches any text. In --config.init_from, {variant} stands for the variant's name as in its folder name and
{transform} for model.transform, so that every variant can start from its own weights.

OUT/STUDY holds a workdir for every run, and table.md, table.csv and plot.png, which are rewritten after every run.
The same command resumes an interrupted study. Results cover the requested seeds. Runs that diverge (non-finite loss) or
run out of memory are marked as such in the results; remove their workdirs to try them again.
"""

import argparse
from collections.abc import Sequence

from rsa_jax.errors import in_one_line
from rsa_jax.flags import Parser, at_least, folder, parse_with_config
from rsa_jax.logs import setup_logging
from rsa_jax.studies.definitions import STUDIES
from rsa_jax.studies.trials import run_study


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("ablate", __doc__)
    add = parser.add_argument
    add("--study", choices=STUDIES, required=True, metavar="STUDY", help=", ".join(STUDIES))
    add("--out", type=folder, required=True, help="folder for the results of studies")
    add(
        "--seeds",
        type=at_least(1),
        default=3,
        help="runs of every variant; config.seed is the first seed (%(default)s)",
    )
    add(
        "--variants",
        action="append",
        default=[],
        metavar="PATTERN",
        help="name of a variant, or pattern such as 'self-attention*'; may be repeated (all)",
    )
    return parse_with_config(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the study."""
    args = _parse(argv)
    setup_logging()
    out = args.out / args.study
    with in_one_line(RuntimeError):
        run_study(args.config, STUDIES[args.study], args.seeds, out, args.variants)
    print((out / "table.md").read_text())
    print(f"Table and plot are in {out}.")


if __name__ == "__main__":
    main()
