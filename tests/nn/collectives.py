"""Prints the collectives in gradients on two devices that share a batch, for every transform and implementation.

This is a separate program because the number of devices is fixed when JAX starts.
"""

import json
import re

import jax
import jax.numpy as jnp
from flax import nnx

from rsa_jax.nn.model_config import model_config as default_model_config
from rsa_jax.nn.registry import TRANSFORMS, transform_factory
from rsa_jax.training.mesh import make_mesh, replicated, split_batch
from tests.tiny import FAST_COMPILATION

SMALL = {
    "rsa": {"num_queries": 2, "kernel_size": (3, 3, 3)},
    "self_attention": {"num_heads": 2, "kernel_size": (3, 3, 3)},
    "involution": {"group_channels": 4, "kernel_size": (3, 3, 3)},
    "lambda_layer": {"num_queries": 2, "kernel_size": (3, 3, 3)},
}
FIELDS = [{"transform": name} for name in TRANSFORMS if name != "conv2d"]
FIELDS.append({"transform": "self_attention", "self_attention.kernel_size": ()})
FIELDS.append({"transform": "rsa", "rsa.decomposed": False, "rsa.relation_groups": 1, "rsa.normalization": "lambda"})
CASES = [fields | {"implementation": name} for name in ("cpu", "xla") for fields in FIELDS]


def collectives(fields):
    config = default_model_config()
    config.update(SMALL)
    config.update_from_flattened_dict(fields)
    layer = nnx.eval_shape(lambda: transform_factory(config, nnx.Rngs(0))(8))
    graph, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)

    def loss(params, stats, x):
        return jnp.sum(jnp.square(nnx.merge(graph, params, stats, copy=True)(x)))

    mesh = make_mesh()
    whole, parts = replicated(mesh), split_batch(mesh)
    gradients = jax.jit(
        jax.grad(loss, argnums=(0, 2)), in_shardings=(whole, whole, parts), out_shardings=(whole, parts)
    )
    with jax.set_mesh(mesh):
        lowered = gradients.lower(params, stats, jax.ShapeDtypeStruct((4, 2, 3, 4, 8), jnp.float32))
    program = lowered.compile(compiler_options=FAST_COMPILATION).as_text()
    return sorted(set(re.findall(r"(all-\w[\w-]*|collective-[\w-]+|reduce-scatter)\(", program)))


if __name__ == "__main__":
    assert jax.device_count() == 2
    print(json.dumps([[fields, collectives(fields)] for fields in CASES]))
