"""A textbook ResNet-50 for images in plain Flax NNX: the baseline for the network without RSA."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float


class Bottleneck(nnx.Module):
    """relu(shortcut + branch) with the stride in the 3x3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int, *, dtype: Any, rngs: nnx.Rngs):
        conv = partial(nnx.Conv, use_bias=False, dtype=dtype, rngs=rngs)
        norm = partial(nnx.BatchNorm, dtype=dtype, rngs=rngs)
        self.conv1, self.norm1 = conv(inputs, width, (1, 1)), norm(width)
        self.conv2, self.norm2 = conv(width, width, (3, 3), strides=stride, padding=1), norm(width)
        self.conv3, self.norm3 = conv(width, 4 * width, (1, 1)), norm(4 * width)
        shortcut = stride > 1 or inputs != 4 * width
        self.conv4 = conv(inputs, 4 * width, (1, 1), strides=stride) if shortcut else None
        self.norm4 = norm(4 * width) if shortcut else None

    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N h w D"]:
        """The block's output."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.conv4 and self.norm4:
            x = self.norm4(self.conv4(x))
        return nnx.relu(x + y)


class ResNet50(nnx.Module):
    """Stem, 3 + 4 + 6 + 3 bottlenecks, mean, classifier."""

    def __init__(self, classes: int, *, dtype: Any, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 64, (7, 7), strides=2, padding=3, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(64, dtype=dtype, rngs=rngs)
        blocks, inputs = [], 64
        for stage, number in enumerate((3, 4, 6, 3)):
            for index in range(number):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(Bottleneck(inputs, 64 * 2**stage, stride, dtype=dtype, rngs=rngs))
                inputs = 256 * 2**stage
        self.blocks = nnx.List(blocks)
        self.classifier = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "N H W 3"]) -> Float[Array, "N classes"]:
        """Logits of images."""
        x = nnx.relu(self.norm(self.conv(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(jnp.mean(x, axis=(1, 2), dtype=jnp.float32))


def make_step(classes: int, dtype: Any) -> tuple[Callable[..., Any], Any]:
    """A training step `state, images, labels -> state` with SGD and momentum, and the state's shapes."""
    model = nnx.eval_shape(lambda: ResNet50(classes, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, *parts = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, statistics = parts
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        params, statistics, momentum = state

        def loss(params: nnx.State) -> tuple[jax.Array, nnx.State]:
            model = nnx.merge(graph, params, statistics, copy=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(model(images), labels)
            return jnp.mean(losses), nnx.state(model, nnx.BatchStat)

        grads, statistics = jax.grad(loss, has_aux=True)(params)
        updates, momentum = optimizer.update(grads, momentum, params)
        return optax.apply_updates(params, updates), statistics, momentum

    state: Any = (params, statistics, jax.eval_shape(optimizer.init, params))
    return step, state
