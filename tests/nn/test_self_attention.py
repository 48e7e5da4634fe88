"""Attention weights that the layer returns for a position."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsa_jax.nn.self_attention import SelfAttention
from rsa_jax.ops.windows import window_at
from tests.tiny import FAST_COMPILATION


@pytest.mark.parametrize(
    ("kernel_size", "position", "key_value", "softmax"),
    [
        ((1, 3, 5), "none", "shared", True),
        ((1, 3, 5), "relative", "per_head", True),
        ((), "relative", "shared", True),
        ((), "absolute", "per_head", True),
        ((1, 3, 5), "relative", "shared", False),
        ((), "relative", "per_head", False),
    ],
)
def test_weights_applied_to_the_values_give_the_output(kernel_size, position, key_value, softmax):
    """In the middle and in a corner of the feature map."""
    fields = {"kernel_size": kernel_size, "position": position, "key_value": key_value, "softmax": softmax}
    layer = SelfAttention(16, num_heads=4, **fields, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 4, 16)), jnp.float32)

    # All in one program: otherwise each operation is compiled at its first call.
    @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
    def run(x):
        return layer(x), layer.project(x)[2], [layer.kernels(x, place)["attention"] for place in places]

    places = [(1, 1, 2), (0, 2, 0)]
    output, value, all_kernels = run(x)
    output = output.reshape(2, 2, 3, 4, 4, 4)
    value = jnp.broadcast_to(value, output.shape).reshape(x.shape)
    for place, kernels in zip(places, all_kernels, strict=True):
        assert kernels.shape == (2, 4, *(kernel_size or (2, 3, 4)))
        seen = window_at(value, place, kernel_size) if kernel_size else value
        y = jnp.einsum("blm,bmlc->blc", kernels.reshape(2, 4, -1), seen.reshape(2, -1, 4, 4))
        np.testing.assert_allclose(y, output[(slice(None), *place)], atol=2e-6)
        if softmax:
            np.testing.assert_allclose(jnp.sum(kernels, axis=(2, 3, 4)), 1, rtol=1e-5)
        if kernel_size:
            inside = window_at(jnp.ones((1, 2, 3, 4, 1)), place, kernel_size).reshape(kernel_size)
            np.testing.assert_array_equal(kernels * (1 - inside), 0)
