"""The command `rsa-jax`, which runs any of the programs."""

import os
import runpy
import sys

from rsa_jax.extras import TRAIN, MissingPackageError, missing

# Name of a program: its module, and what it does.
PROGRAMS = {
    "train": ("rsa_jax.tools.train", "train a network, or resume training"),
    "eval": ("rsa_jax.tools.train", "evaluate a checkpoint"),
    "prepare": ("rsa_jax.tools.prepare", "prepare a data set"),
    "browse": ("rsa_jax.tools.browse", "show prepared clips as the network gets them"),
    "predict": ("rsa_jax.tools.predict", "predict the classes of videos"),
    "combine": ("rsa_jax.tools.combine", "average scores of several networks"),
    "summary": ("rsa_jax.tools.summary", "print the results of workdirs"),
    "predictions": ("rsa_jax.tools.gallery", "draw clips with their predictions"),
    "visualize": ("rsa_jax.tools.visualize", "draw the kernels of a layer"),
    "convert": ("rsa_jax.tools.convert", "convert weights from and to PyTorch"),
    "profile": ("rsa_jax.tools.profile", "print what a network costs"),
    "ablate": ("rsa_jax.tools.ablate", "train and compare variants of a network"),
}


def main() -> None:
    """Runs the program that the first argument names, with the arguments behind it."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in PROGRAMS:
        lines = [f"  {program:<12} {what}" for program, (_, what) in PROGRAMS.items()]
        text = "\n".join(["usage: rsa-jax PROGRAM [arguments]; rsa-jax PROGRAM --help", "", *lines])
        if name in ("-h", "--help"):
            print(text)
            return
        sys.exit(f"rsa-jax: there is no program {name!r}\n{text}")
    module, _ = PROGRAMS[name]
    sys.argv = [f"rsa-jax {name}", *(["--mode=eval"] if name == "eval" else []), *sys.argv[2:]]
    sys.path.insert(0, os.getcwd())  # as `python -m` does: recipes import the folder of recipes
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except MissingPackageError as error:
        sys.exit(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN:
            raise
        sys.exit(str(missing(error, "train")))


if __name__ == "__main__":
    main()
