"""The compiled step: accumulation, loss and randomness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsa_jax.nn import registry
from rsa_jax.nn.network import create_model
from rsa_jax.training.optimizer import make_optimizer, make_schedule
from rsa_jax.training.run_log import NonFiniteLossError, PendingMetrics
from rsa_jax.training.state import TrainState, create_state, define_model, split_model
from rsa_jax.training.step import cross_entropy, make_train_step, make_update
from tests.tiny import FAST_COMPILATION


def batch(size=8):
    rng = np.random.default_rng(0)
    return {
        "frames": rng.integers(0, 256, (size, 4, 36, 36, 3)).astype(np.uint8),
        "label": rng.integers(0, 10, size).astype(np.int32),
        "index": np.arange(size, dtype=np.int32),
        "epoch": np.zeros(size, np.int32),
        "mask": np.ones(size, np.float32),
    }


def one_step(config, **inputs):
    schedule = make_schedule(config.optimizer, epochs=2, steps_per_epoch=4)
    optimizer = make_optimizer(config.optimizer, schedule)
    step = make_train_step(define_model(config.model, jax.devices()[0]), optimizer, schedule, config, flip_pairs=())
    return jax.jit(step, compiler_options=FAST_COMPILATION)(create_state(config, optimizer), batch() | inputs)


@pytest.fixture
def step_config(config):
    config.model.num_classes = 10
    return config


def test_accumulation_over_parts_is_the_mean_of_their_gradients(step_config):
    """Chunks interleave the batch, so the whole batch is reordered to give BatchNorm the same groups."""
    config = step_config
    config.model.update(dropout=0.0, stochastic_depth=0.0, batch_norm_clips=4)
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    whole, whole_metrics = one_step(config, **{name: x[order] for name, x in batch().items()})
    config.optimizer.accumulation = 2
    parts, parts_metrics = one_step(config)
    for name in ("loss", "accuracy", "gradient_norm"):
        np.testing.assert_allclose(parts_metrics[name], whole_metrics[name], rtol=1e-4)
    for a, b in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_parts_of_bfloat16_clips(step_config):
    """The loss and the clips have different dtypes."""
    step_config.optimizer.accumulation = 2
    optimizer = make_optimizer(step_config.optimizer, lambda step: 0.1)
    update = make_update(define_model(step_config.model, jax.devices()[0]), optimizer, step_config)
    state = jax.eval_shape(lambda: create_state(step_config, optimizer))
    clips = jax.ShapeDtypeStruct((8, 4, 32, 32, 3), jnp.bfloat16)
    after, metrics = jax.eval_shape(update, state, clips, jax.ShapeDtypeStruct((8,), jnp.int32))
    assert metrics["loss"].dtype == jnp.float32
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, state)


def test_a_step_draws_the_same_random_numbers_each_time_and_others_by_seed(step_config):
    first, again = one_step(step_config)[1], one_step(step_config)[1]
    step_config.seed = 1
    assert float(first["loss"]) == float(again["loss"]) != float(one_step(step_config)[1]["loss"])


@pytest.mark.parametrize("policy, swapped", [(None, []), ("swap", [2, 3])])
def test_a_mirrored_clip_counts_for_the_class_of_its_mirror_image(step_config, monkeypatch, policy, swapped):
    """Only with the policy 'swap': in the published recipes, clips of such classes are not mirrored."""
    update = lambda state, clips, label: (state, {"label": label})  # noqa: E731
    monkeypatch.setattr("rsa_jax.training.step.make_update", lambda *args: update)
    step_config.data.flip_policy = policy or step_config.data.flip_policy
    step = make_train_step(None, None, lambda step: 0.1, step_config, flip_pairs=((2, 3), (4,)))
    label = np.arange(64, dtype=np.int32) % 6
    _, metrics = step(TrainState(0, None, None, None), batch(64) | {"label": label})
    changed = np.asarray(metrics["label"]) != label
    assert sorted(set(label[changed])) == swapped
    np.testing.assert_array_equal(np.asarray(metrics["label"])[changed], 5 - label[changed])


def test_a_step_is_compiled_once(step_config):
    """The new state has the shapes and dtypes of the old one, including weak types."""
    optimizer = make_optimizer(step_config.optimizer, lambda step: 0.1)
    state = jax.eval_shape(lambda: create_state(step_config, optimizer))
    step = make_train_step(
        define_model(step_config.model, jax.devices()[0]), optimizer, lambda step: 0.1, step_config, flip_pairs=()
    )
    after, _ = jax.eval_shape(step, state, batch())
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)


TRANSFORMS = [{"transform": name} for name in registry.TRANSFORMS] + [
    {"rsa.normalization": "batch", "rsa.relation_groups": 1},
    {"rsa.decomposed": False, "rsa.factorized": True},
    {"transform": "self_attention", "self_attention.kernel_size": ()},
]


@pytest.mark.parametrize("fields", TRANSFORMS, ids=lambda fields: " ".join(map(str, fields.values())))
def test_every_transform_learns(step_config, fields):
    """One step of a tiny network changes every parameter of the block's transform, and its statistics."""
    config = step_config
    config.model.update(dropout=0.0, stochastic_depth=0.0, zero_init=False)
    config.model.self_attention.update(num_heads=2, kernel_size=(3, 3, 3))
    config.model.involution.update(group_channels=4, kernel_size=(3, 3, 3))
    config.model.lambda_layer.update(num_queries=2, kernel_size=(3, 3, 3))
    config.model.update_from_flattened_dict(fields)
    config.optimizer.weight_decay = 0.0
    optimizer = make_optimizer(config.optimizer, lambda step: 0.1)
    update = make_update(define_model(config.model, jax.devices()[0]), optimizer, config)
    # NumPy draws these: compiling so many random draws takes longer than compiling the step.
    params, batch_stats = jax.eval_shape(lambda: split_model(create_model(config.model, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), params)
    batch_stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), batch_stats)
    before = TrainState(np.int32(0), params, batch_stats, optimizer.init(params))
    clips = rng.standard_normal((4, 3, 16, 12, 3), np.float32)
    after, metrics = jax.jit(update, compiler_options=FAST_COMPILATION)(before, clips, np.arange(4))
    assert np.isfinite(metrics["loss"])
    for name in ("params", "batch_stats"):
        old, new = (getattr(state, name)["stages"][0][0] for state in (before, after))
        # Only the statistics inside the transform; without a BatchNorm it has none.
        pairs = zip(jax.tree.leaves(old.get("conv2", {})), jax.tree.leaves(new.get("conv2", {})), strict=True)
        assert all(np.all(np.isfinite(b)) and np.any(a != b) for a, b in pairs), name


def test_cross_entropy_with_label_smoothing():
    logits, label = jnp.array([[1.0, 2.0, 0.5]]), jnp.array([1])
    log_p = np.log(np.exp(logits) / np.sum(np.exp(logits)))
    expected = -(0.7 * log_p[0, 1] + 0.1 * log_p[0].sum())
    np.testing.assert_allclose(cross_entropy(logits, label, 0.3)[0], expected, rtol=1e-6)


def test_a_loss_that_is_not_finite_names_its_steps():
    pending = PendingMetrics(batch_size=8)
    for step, loss in ((7, 1.0), (8, np.nan), (9, np.inf)):
        pending.add(step, {"loss": jnp.asarray(loss), "parameter_norm": jnp.asarray(1.0)})
    pending.add(10, {"loss": jnp.asarray(1.0), "parameter_norm": jnp.asarray(np.inf)})
    with pytest.raises(NonFiniteLossError, match=r"steps \[8, 9, 10\]"):
        pending.check()
