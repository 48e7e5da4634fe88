"""Trains or evaluates: python main.py --config configs/ssv2.py --workdir /ckpt [--mode eval] [--config.x=y ...]."""

from absl import app, flags

from rsa_jax.flags import parse
from rsa_jax.tools import train

flags.adopt_module_key_flags(train)

if __name__ == "__main__":
    app.run(train.main, flags_parser=parse)
