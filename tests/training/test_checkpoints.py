"""Checkpoints: which are kept, and what they restore."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsa_jax.settings import default_config
from rsa_jax.training.checkpoints import Checkpoints
from rsa_jax.training.state import TrainState
from rsa_jax.training.workdir import WorkdirError


def state(step):
    params = {"stages": {0: {1: {"kernel": jnp.full((2, 3), step + 0.5)}}}}
    return TrainState(jnp.asarray(step), params, {"mean": jnp.ones(2)}, ({"trace": jnp.zeros(3)},))


@pytest.fixture
def checkpoints(tmp_path):
    manager = Checkpoints(tmp_path, default_config().checkpoint)
    yield manager
    manager.close()


def test_the_best_and_the_latest_are_kept(checkpoints):
    for step, top1 in ((1, 10.0), (2, 30.0), (3, None), (4, 20.0), (5, None)):
        checkpoints.save(state(step), None if top1 is None else {"top1": top1})
    checkpoints.close()
    assert checkpoints.steps() == [2, 5]
    assert (checkpoints.find("best"), checkpoints.find("latest"), checkpoints.find("2")) == (2, 5, 2)


def test_a_state_comes_back_as_it_was(tmp_path, checkpoints):
    checkpoints.save(state(3))
    checkpoints.close()
    again = Checkpoints(tmp_path, default_config().checkpoint)
    restored = again.restore(jax.eval_shape(lambda: state(3)), 3)
    assert jax.tree.structure(restored) == jax.tree.structure(state(3))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    again.close()


def test_checkpoints_that_are_not_there(checkpoints):
    with pytest.raises(WorkdirError, match="holds no checkpoint"):
        checkpoints.find("best")
    checkpoints.save(state(3))
    with pytest.raises(WorkdirError, match=r"no checkpoint for step 4; available: \[3\]"):
        checkpoints.restore(state(4), 4)
    with pytest.raises(WorkdirError, match="checkpoint: expected"):
        checkpoints.find("newest")


def test_fields_that_are_none_are_no_part_of_a_checkpoint(tmp_path, checkpoints):
    """So that a field of a new option does not part existing checkpoints from their run."""
    checkpoints.save(state(3)._replace(opt_state=None))
    checkpoints.close()
    again = Checkpoints(tmp_path, default_config().checkpoint)
    restored = again.restore(jax.eval_shape(lambda: state(3)._replace(opt_state=None)), 3)
    assert restored.opt_state is None
    assert int(restored.step) == 3
    again.close()
