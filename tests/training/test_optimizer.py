"""The optimizer against PyTorch's rules, and the learning rate against the published runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from rsa_jax.training.optimizer import clip_by_global_norm, decay_mask, make_optimizer, make_schedule
from tests import golden_files


@pytest.mark.parametrize("epochs", ["30", "50", "80"])
def test_learning_rate_per_epoch_is_the_published_one(epochs):
    golden = golden_files.read("learning_rate_per_epoch")[epochs]
    schedule = make_schedule(common.optimizer_config(), epochs=int(epochs), steps_per_epoch=7)
    for place in (0, 6):  # the same in all of an epoch's steps
        rates = [schedule(7 * epoch + place) for epoch in range(int(epochs))]
        np.testing.assert_allclose(rates, golden, rtol=2e-5)


def test_learning_rate_per_step_meets_that_of_the_epoch_at_its_end():
    config = common.optimizer_config()
    by_epoch = make_schedule(config, epochs=30, steps_per_epoch=5)
    config.schedule = "step"
    by_step = make_schedule(config, epochs=30, steps_per_epoch=5)
    for epoch in range(30):
        np.testing.assert_allclose(by_step(5 * epoch + 4), by_epoch(5 * epoch), rtol=1e-5)
    assert by_step(0) < by_step(1) < by_epoch(0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("schedule", "epochs", "optimizer.schedule"), ("warmup_epochs", 50, "optimizer.warmup_epochs: expected 0 to 49")],
)
def test_bad_schedules_are_named(field, value, message):
    config = common.optimizer_config()
    config[field] = value
    with pytest.raises(ValueError, match=message):
        make_schedule(config, epochs=50, steps_per_epoch=5)


def test_steps_are_those_of_pytorch_sgd():
    """Nesterov momentum, decay and clipping in PyTorch's order, over three steps."""
    config = common.optimizer_config()
    config.update(gradient_clip=1.0, weight_decay=0.1)
    rng = np.random.default_rng(0)
    params = {"kernel": rng.standard_normal(5), "bias": rng.standard_normal(3)}
    optimizer = make_optimizer(config, lambda step: 0.1)
    state, ours = optimizer.init(params), jax.tree.map(jnp.asarray, params)
    buffers = dict.fromkeys(params, 0.0)
    for _ in range(3):
        grads = {name: rng.standard_normal(value.shape) for name, value in params.items()}
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, grads), state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        for name, decay in (("kernel", 0.1), ("bias", 0.0)):
            grad = grads[name] * min(1, 1 / (norm + 1e-6)) + decay * params[name]
            buffers[name] = 0.9 * buffers[name] + grad
            params[name] = params[name] - 0.1 * (grad + 0.9 * buffers[name])
        for name, expected in params.items():
            np.testing.assert_allclose(ours[name], expected, rtol=1e-5)


def test_small_gradients_are_not_clipped():
    grads = {"a": jnp.array([3.0, 4.0])}
    clip = clip_by_global_norm(10.0)
    assert jnp.array_equal(clip.update(grads, clip.init(grads))[0]["a"], grads["a"])


def test_batch_norm_and_biases_do_not_decay():
    params = {"bn": {"scale": 0, "bias": 0}, "conv": {"kernel": 0}, "rsa": {"P1": 0, "I": 0}, "fc": {"bias": 0}}
    assert decay_mask(params) == {
        "bn": {"scale": False, "bias": False},
        "conv": {"kernel": True},
        "rsa": {"P1": True, "I": True},
        "fc": {"bias": False},
    }
