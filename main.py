"""Train or evaluate: python main.py --config configs/ssv2.py --workdir /ckpt [--mode eval] [--config.x=y ...]."""

import sys

from rsa_jax.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
