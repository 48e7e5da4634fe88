"""RSA as a layer of your own network, in Flax NNX and in Flax Linen.

python -m examples.own_network
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from jaxtyping import Array, Float, Int

from rsa_jax import RSA

WIDTH = 16


class Network(nnx.Module):
    """A convolution within each frame, RSA across frames, and a mean over all positions."""

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, WIDTH, (7, 7), strides=(4, 4), rngs=rngs)
        self.stem_norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.rsa = RSA(WIDTH, num_queries=4, kernel_size=(5, 7, 7), rngs=rngs)
        self.rsa_norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.mix = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.classifier = nnx.Linear(WIDTH, num_classes, rngs=rngs)

    def features(self, clips: Float[Array, "B T H W 3"]) -> Float[Array, "B T H/4 W/4 C"]:
        """Input of the RSA layer."""
        return nnx.relu(self.stem_norm(self.stem(clips)))

    def __call__(self, clips: Float[Array, "B T H W 3"]) -> Float[Array, "B K"]:
        """Logits of every class."""
        x = nnx.relu(self.rsa_norm(self.rsa(self.features(clips))))
        return self.classifier(nnx.relu(self.mix(x)).mean(axis=(1, 2, 3)))


class LinenNetwork(linen.Module):
    """The same network in Linen. `nnx.bridge` turns the RSA layer into a Linen module."""

    num_classes: int

    @linen.compact
    def __call__(self, clips: Float[Array, "B T H W 3"], train: bool) -> Float[Array, "B K"]:
        """Logits of every class."""
        x = linen.Conv(WIDTH, (7, 7), strides=(4, 4), name="stem")(clips)
        x = linen.relu(linen.BatchNorm(not train, momentum=0.9, name="stem_norm")(x))
        x = nnx.bridge.to_linen(RSA, WIDTH, num_queries=4, kernel_size=(5, 7, 7), name="rsa")(x)
        x = linen.relu(linen.BatchNorm(not train, momentum=0.9, name="rsa_norm")(x))
        x = linen.relu(linen.Dense(WIDTH, name="mix")(x)).mean(axis=(1, 2, 3))
        return linen.Dense(self.num_classes, name="classifier")(x)


def cross_entropy(logits: Float[Array, "B K"], labels: Int[Array, " B"]) -> Float[Array, ""]:
    """Mean cross-entropy over the clips."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@nnx.jit
def step(
    network: Network, optimizer: nnx.Optimizer, clips: Float[Array, "B T H W 3"], labels: Int[Array, " B"]
) -> Array:
    """Trains the NNX network for one step, and returns the loss."""
    loss, gradients = nnx.value_and_grad(lambda network: cross_entropy(network(clips), labels))(network)
    optimizer.update(network, gradients)
    return loss


def train_nnx(clips: Float[Array, "B T H W 3"], labels: Int[Array, " B"], steps: int) -> list[float]:
    """Trains the NNX network on one batch, and returns the loss of each step."""
    network = Network(num_classes=len(labels), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(network, optax.adam(3e-3), wrt=nnx.Param)
    return [float(step(network, optimizer, clips, labels)) for _ in range(steps)]


def train_linen(clips: Float[Array, "B T H W 3"], labels: Int[Array, " B"], steps: int) -> list[float]:
    """Trains the Linen network on one batch, and returns the loss of each step."""
    network, optimizer = LinenNetwork(num_classes=len(labels)), optax.adam(3e-3)
    variables = network.init(jax.random.key(0), clips, train=True)
    params, stats = variables["params"], variables["batch_stats"]
    state = optimizer.init(params)

    def loss_of(params: Any, stats: Any) -> tuple[Array, Any]:
        logits, changed = network.apply(
            {"params": params, "batch_stats": stats}, clips, train=True, mutable=["batch_stats"]
        )
        return cross_entropy(logits, labels), changed["batch_stats"]

    @jax.jit
    def step(params: Any, stats: Any, state: Any) -> tuple[Any, Any, Any, Array]:
        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, stats)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), stats, state, loss

    losses = []
    for _ in range(steps):
        params, stats, state, loss = step(params, stats, state)
        losses.append(float(loss))
    return losses


def main() -> None:
    """Overfits both networks to four clips of noise."""
    clips, labels = jax.random.normal(jax.random.key(0), (4, 4, 16, 16, 3)), jnp.arange(4)
    for name, train in (("NNX", train_nnx), ("Linen", train_linen)):
        losses = train(clips, labels, steps=30)
        print(f"{name}: loss {losses[0]:.3f}, after {len(losses)} steps {losses[-1]:.3f}")


if __name__ == "__main__":
    main()
