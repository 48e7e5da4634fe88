"""RSA as a layer of a network of your own, in Flax NNX and in Flax Linen.

python -m examples.own_network
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from jaxtyping import Array, Float

from rsa_jax import RSA

WINDOW = (5, 5, 5)


class Network(nnx.Module):
    """Convolutions that look at each frame, RSA that looks at how frames relate, and a mean over all positions."""

    def __init__(self, num_classes: int, width: int = 32, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, width, (1, 3, 3), strides=(1, 2, 2), rngs=rngs)
        self.stem_norm = nnx.LayerNorm(width, rngs=rngs)
        self.rsa = RSA(width, num_queries=4, kernel_size=WINDOW, rngs=rngs)
        self.rsa_norm = nnx.LayerNorm(width, rngs=rngs)
        self.mix = nnx.Conv(width, width, (1, 3, 3), strides=(1, 2, 2), rngs=rngs)
        self.classifier = nnx.Linear(width, num_classes, rngs=rngs)

    def features(self, clips: Float[Array, "B T H W 3"]) -> Float[Array, "B T H/2 W/2 C"]:
        """What RSA gets."""
        return nnx.relu(self.stem_norm(self.stem(clips)))

    def __call__(self, clips: Float[Array, "B T H W 3"]) -> Float[Array, "B K"]:
        """Logits of every class."""
        x = self.features(clips)
        x = nnx.relu(x + self.rsa_norm(self.rsa(x)))
        x = nnx.relu(self.mix(x))
        return self.classifier(x.mean(axis=(1, 2, 3)))


class LinenNetwork(linen.Module):
    """The same in Linen: the bridge makes a Linen module of the layer."""

    num_classes: int
    width: int = 32

    @linen.compact
    def __call__(self, clips: Float[Array, "B T H W 3"]) -> Float[Array, "B K"]:
        """Logits of every class."""
        x = linen.Conv(self.width, (1, 3, 3), strides=(1, 2, 2), name="stem")(clips)
        x = linen.relu(linen.LayerNorm(name="stem_norm")(x))
        rsa = nnx.bridge.to_linen(RSA, self.width, num_queries=4, kernel_size=WINDOW, name="rsa")
        x = linen.relu(x + linen.LayerNorm(name="rsa_norm")(rsa(x)))
        x = linen.relu(linen.Conv(self.width, (1, 3, 3), strides=(1, 2, 2), name="mix")(x))
        return linen.Dense(self.num_classes, name="classifier")(x.mean(axis=(1, 2, 3)))


def cross_entropy(logits: Float[Array, "B K"], labels: Array) -> Float[Array, ""]:
    """Mean over the clips."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@nnx.jit
def step(network: Network, optimizer: nnx.Optimizer, clips: Float[Array, "B T H W 3"], labels: Array) -> Array:
    """Trains the NNX network on a batch, and returns its loss."""
    loss, gradients = nnx.value_and_grad(lambda network: cross_entropy(network(clips), labels))(network)
    optimizer.update(network, gradients)
    return loss


def main() -> None:
    """Twenty steps of both networks on a batch of noise, which they learn by heart."""
    clips = jax.random.normal(jax.random.key(0), (4, 8, 16, 16, 3))
    labels = jnp.arange(4)

    network = Network(num_classes=4, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(network, optax.adam(3e-3), wrt=nnx.Param)
    losses = [float(step(network, optimizer, clips, labels)) for _ in range(20)]
    print(f"NNX: loss {losses[0]:.3f}, after {len(losses)} steps {losses[-1]:.3f}")

    linen_network = LinenNetwork(num_classes=4)
    variables = linen_network.init(jax.random.key(0), clips)
    linen_optimizer = optax.adam(3e-3)
    state = linen_optimizer.init(variables)

    @jax.jit
    def linen_step(variables, state):  # type: ignore[no-untyped-def]
        loss, gradients = jax.value_and_grad(lambda v: cross_entropy(linen_network.apply(v, clips), labels))(variables)
        updates, state = linen_optimizer.update(gradients, state)
        return optax.apply_updates(variables, updates), state, loss

    losses = []
    for _ in range(20):
        variables, state, loss = linen_step(variables, state)
        losses.append(float(loss))
    print(f"Linen: loss {losses[0]:.3f}, after {len(losses)} steps {losses[-1]:.3f}")


if __name__ == "__main__":
    main()
