"""The optimizer against PyTorch's rules, and the learning rate against the published runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsa_jax import settings
from rsa_jax.training.optimizer import (
    clip_by_global_norm,
    compare_rate,
    decay_mask,
    make_optimizer,
    make_restart,
    make_schedule,
)
from tests import golden_files


@pytest.mark.parametrize("epochs", ["30", "50", "80"])
def test_learning_rate_per_epoch_is_the_published_one(epochs):
    golden = golden_files.read("learning_rate_per_epoch")[epochs]
    schedule = make_schedule(settings.optimizer_config(), epochs=int(epochs), steps_per_epoch=7)
    for place in (0, 6):  # the rate is constant within an epoch
        rates = [schedule(7 * epoch + place) for epoch in range(int(epochs))]
        np.testing.assert_allclose(rates, golden, rtol=2e-5)


def test_learning_rate_per_step_meets_that_of_the_epoch_at_its_end():
    config = settings.optimizer_config()
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
    config = settings.optimizer_config()
    config[field] = value
    with pytest.raises(ValueError, match=message):
        make_schedule(config, epochs=50, steps_per_epoch=5)


def test_steps_are_those_of_pytorch_sgd():
    """Nesterov momentum, decay and clipping in PyTorch's order, over three steps."""
    config = settings.optimizer_config()
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


def published_simulation(params, gradients, config, rates):
    """The published loop in plain NumPy: every epoch begins with a step at the base rate.

    PyTorch skips that step in the first epoch, when no parameter has a gradient; later the gradients are zeros.
    """
    params = {name: value.astype(np.float64) for name, value in params.items()}
    decay = {"conv/kernel": config.weight_decay, "fc/kernel": config.weight_decay}
    factor = {"fc/bias": 2.0}  # times the base rate, in the group of biases; the schedule overwrites it
    buffers = dict.fromkeys(params, 0.0)

    def step(gradient, rate):
        for name in params:
            full = gradient[name] + decay.get(name, 0.0) * params[name]
            buffers[name] = config.momentum * buffers[name] + full
            params[name] = params[name] - rate(name) * (full + config.momentum * buffers[name])

    for epoch, epoch_gradients in enumerate(gradients):
        if epoch > 0:
            step(dict.fromkeys(params, 0.0), lambda name: config.learning_rate * factor.get(name, 1.0))
        for gradient in epoch_gradients:
            norm = np.sqrt(sum(np.sum(value**2) for value in gradient.values()))
            clipped = {name: value * min(1, config.gradient_clip / (norm + 1e-6)) for name, value in gradient.items()}
            step(clipped, lambda name, rate=rates[epoch]: rate)
    return params


def test_the_restart_step_is_that_of_the_published_loop():
    """Three epochs of four steps against NumPy."""
    config = settings.optimizer_config()
    config.update(warmup_epochs=1, gradient_clip=1.0, weight_decay=0.1)
    rng = np.random.default_rng(0)
    shapes = {"conv/kernel": (3, 2), "bn/scale": (2,), "bn/bias": (2,), "fc/kernel": (2, 4), "fc/bias": (4,)}
    start = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    gradients = [[{n: rng.standard_normal(s) for n, s in shapes.items()} for _ in range(4)] for _ in range(3)]
    rates = [0.02, 0.02 * (1e-3 + (1 - 1e-3) / 2), 0.02 * 1e-3]  # warm-up, then a cosine to its end

    def tree(flat):
        nested = {}
        for name, value in flat.items():
            layer, parameter = name.split("/")
            nested.setdefault(layer, {})[parameter] = jnp.asarray(value)
        return nested

    schedule = make_schedule(config, epochs=3, steps_per_epoch=4)
    np.testing.assert_allclose([schedule(4 * epoch) for epoch in range(3)], rates, rtol=1e-5)
    optimizer, restart = make_optimizer(config, schedule), make_restart(config)
    params = tree(start)
    state = optimizer.init(params)
    moved = []
    for epoch in range(3):
        if epoch > 0:
            params, state, norm = restart(params, state)
            moved.append(float(norm))
        for gradient in gradients[epoch]:
            updates, state = optimizer.update(tree(gradient), state, params)
            params = optax.apply_updates(params, updates)
    assert min(moved) > 1e-3
    expected = tree(published_simulation(start, gradients, config, rates))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7), params, expected)


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


def test_the_rate_is_compared_with_the_recipe():
    config = settings.optimizer_config()
    assert compare_rate(config, 64) == "Learning rate 0.02 for batches of 64 clips, as in the recipe."
    smaller = compare_rate(config, 16)
    assert "The rate per clip is 4 times the recipe's" in smaller
    assert "linear rule gives a learning rate of 0.005, and the square-root rule" in smaller
    assert smaller.endswith("which the authors name, 0.01.")
    config.learning_rate = 0.005
    assert "The rate per clip is 1 times the recipe's" in compare_rate(config, 16)
