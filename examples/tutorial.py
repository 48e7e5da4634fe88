"""RSA in five steps: clips, a network, less than a minute of training, what it learned, and its kernels.

python -m examples.tutorial [kernels.png]
"""

import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from examples.own_network import Network, step
from rsa_jax.pictures.kernel_figure import Panel, draw_kernels
from rsa_jax.preparation.datasets.motion import CLASS_NAMES, draw

CLASSES = ("moving left", "moving right", "moving up", "moving down")
FRAMES, SIZE = 8, 32


def draw_clips(number: int) -> tuple[Float[Array, "B T H W 3"], Int[Array, " B"]]:
    """Clips whose class is a motion, and their labels.

    The two classes of a pair hold the same frames in reverse order: single frames do not reveal the class.
    """
    labels = np.arange(number) % len(CLASSES)
    seeds = ((0, i) for i in range(number))
    pixels = [
        draw(seed, CLASS_NAMES.index(CLASSES[label]), FRAMES, (SIZE, SIZE))
        for seed, label in zip(seeds, labels, strict=True)
    ]
    return jnp.asarray(np.stack(pixels), jnp.float32) / 127.5 - 1, jnp.asarray(labels)


def train(
    network: Network, clips: Float[Array, "B T H W 3"], labels: Int[Array, " B"], steps: int, batch_size: int = 32
) -> None:
    """Trains on random batches, and prints the loss."""
    optimizer = nnx.Optimizer(network, optax.adam(optax.cosine_decay_schedule(1e-2, steps)), wrt=nnx.Param)
    rng, start = np.random.default_rng(0), time.perf_counter()
    for i in range(steps):
        chosen = rng.choice(len(clips), batch_size, replace=False)
        loss = step(network, optimizer, clips[chosen], labels[chosen])
        if i % 50 == 0 or i == steps - 1:
            print(f"step {i}: loss {loss:.3f}, {time.perf_counter() - start:.0f} s")


@nnx.jit
def predict(network: Network, clips: Float[Array, "B T H W 3"]) -> Int[Array, " B"]:
    """Predicted class of every clip."""
    return network(clips).argmax(axis=-1)


def kernel_panel(network: Network, clip: Float[Array, "T H W 3"]) -> Panel:
    """Panel with the kernels of the query in the middle of a clip."""
    x = network.features(clip[None])
    map_size = x.shape[1], x.shape[2], x.shape[3]
    middle = map_size[0] // 2, map_size[1] // 2, map_size[2] // 2
    kernels = {name: np.asarray(kernel[0]) for name, kernel in network.rsa.kernels(x, middle).items()}
    kernels["total"] = kernels["basic"] + kernels["relational"]
    return Panel(np.asarray((clip + 1) * 127.5, np.uint8), map_size, middle, network.rsa.kernel_size, kernels)


def main(out: Path, num_clips: int = 2000, steps: int = 200) -> None:
    """Runs all five steps."""
    out.parent.mkdir(parents=True, exist_ok=True)
    clips, labels = draw_clips(num_clips)
    print(f"1. {num_clips} clips of {FRAMES} frames of {SIZE} x {SIZE}, of {len(CLASSES)} classes")

    network = Network(num_classes=len(CLASSES), rngs=nnx.Rngs(0))
    print(f"2. A network with RSA of {network.rsa.num_queries} queries in a window of {network.rsa.kernel_size}")

    known = num_clips * 4 // 5
    print(f"3. Training on {known} of the clips")
    train(network, clips[:known], labels[:known], steps)

    network.eval()
    unseen, truth = clips[known:], labels[known:]
    forwards, backwards = predict(network, unseen), predict(network, unseen[:, ::-1])
    right = 100 * jnp.mean(forwards == truth)
    opposite = 100 * jnp.mean(backwards == truth ^ 1)  # left is 0 and right 1, up is 2 and down 3
    print(f"4. Of the others, {right:.0f} % are right; by chance {100 / len(CLASSES):.0f} % would be.")
    print(f"   Played backwards, {opposite:.0f} % are taken for the opposite.")

    titles = [
        f"{CLASSES[int(truth[0])]}, taken for {CLASSES[int(forwards[0])]}",
        f"the same played backwards, taken for {CLASSES[int(backwards[0])]}",
    ]
    draw_kernels(titles, [kernel_panel(network, unseen[0]), kernel_panel(network, unseen[0, ::-1])], out)
    print(f"5. Kernels of a query (red; its window is yellow) are in {out}, a slice for each frame of the window.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "kernels.png"))
