"""RSA in five cells: clips, a network, a minute of training, what it learned, and its kernels.

python -m examples.tutorial [kernels.png]

The cells run one by one in editors that know `# %%` (VS Code, Spyder, Jupytext).
"""

# %% Clips whose class is a motion. The classes of a pair hold the same frames in reversed order: looking at frames
# one by one tells nothing.
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples.own_network import Network, step
from rsa_jax.data.datasets.motion import CLASS_NAMES, draw
from rsa_jax.tools.kernel_figure import Panel, draw_kernels

CLASSES = ("moving left", "moving right", "moving up", "moving down")
FRAMES, SIZE, TRAIN, VALIDATION = 8, 32, 1600, 400

labels = np.arange(TRAIN + VALIDATION) % len(CLASSES)
pixels = np.stack([draw((0, i), CLASS_NAMES.index(CLASSES[k]), FRAMES, (SIZE, SIZE)) for i, k in enumerate(labels)])
clips = pixels.astype(np.float32) / 127.5 - 1  # [clips, frames, height, width, 3]
print(f"{len(clips)} clips of {clips.shape[1:]}, {len(CLASSES)} classes")

# %% A network: convolutions on each frame, one RSA layer over frames, a mean.
network = Network(num_classes=len(CLASSES), width=32, rngs=nnx.Rngs(0))

# %% Training, for less than a minute.
STEPS, BATCH = 300, 32

optimizer = nnx.Optimizer(network, optax.adam(optax.cosine_decay_schedule(3e-3, STEPS)), wrt=nnx.Param)
rng = np.random.default_rng(0)
start = time.perf_counter()
for i in range(STEPS):
    chosen = rng.choice(TRAIN, BATCH, replace=False)
    loss = step(network, optimizer, clips[chosen], labels[chosen])
    if i % 50 == 0 or i == STEPS - 1:
        print(f"step {i}: loss {loss:.3f}, {time.perf_counter() - start:.0f} s")

# %% What it learned. Played backwards, a clip of "moving left" is one of "moving right".
predict = nnx.jit(lambda network, clips: network(clips).argmax(axis=-1))
unseen, truth = clips[TRAIN:], labels[TRAIN:]
forwards, backwards = predict(network, unseen), predict(network, unseen[:, ::-1])
accuracy = 100 * jnp.mean(forwards == truth)
print(f"{accuracy:.0f} % of unseen clips are right, by chance {100 / len(CLASSES):.0f} %")
print(f"{100 * jnp.mean(backwards == truth ^ 1):.0f} % are taken for the opposite when they are played backwards")

# %% The kernels: what one position of one clip sums its surroundings with, and how they change backwards.
clip = int(np.flatnonzero(forwards == truth)[0])
panels, titles = [], []
for frames, name in ((unseen[clip], ""), (unseen[clip, ::-1], " played backwards")):
    x = network.features(frames[None])
    position = (FRAMES // 2, x.shape[2] // 2, x.shape[3] // 2)
    kernels = {name: np.asarray(kernel[0]) for name, kernel in network.rsa.kernels(x, position).items()}
    kernels["total"] = kernels["basic"] + kernels["relational"]
    seen = ((frames + 1) * 127.5).astype(np.uint8)
    panels.append(Panel(seen, x.shape[1:4], position, network.rsa.kernel_size, kernels))
    titles.append(f"{CLASSES[truth[clip]]}{name}: {CLASSES[int(predict(network, frames[None])[0])]}")
out = Path(sys.argv[1] if len(sys.argv) == 2 else "kernels.png")
draw_kernels(titles, panels, out)
print(f"Kernels are drawn in {out}: query red, window yellow, a slice for each frame of the window")
