"""The examples run, and what they claim is true."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples import own_network, tutorial


def clips(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal((*shape, 3)), jnp.float32)


def test_the_network_in_linen_is_the_one_in_nnx():
    x = clips(2, 3, 16, 16)
    linen = own_network.LinenNetwork(num_classes=5)
    variables = linen.init(jax.random.key(0), x, train=False)
    network = own_network.Network(num_classes=5, rngs=nnx.Rngs(1))
    network.eval()
    params = nnx.state(network, nnx.Param)
    nnx.replace_by_pure_dict(params, variables["params"])
    nnx.update(network, params)
    np.testing.assert_allclose(network(x), linen.apply(variables, x, train=False), rtol=1e-5, atol=1e-5)


def test_both_networks_learn(capsys):
    own_network.main()
    for line in capsys.readouterr().out.splitlines():
        first, last = float(line.split()[2].rstrip(",")), float(line.split()[-1])
        assert last < 0.5 * first


def test_the_tutorial_ends_with_a_picture(tmp_path, capsys):
    tutorial.main(tmp_path / "kernels.png", num_clips=160, steps=2)
    assert (tmp_path / "kernels.png").exists()
    assert [line[0] for line in capsys.readouterr().out.splitlines() if line[1:2] == "."] == list("12345")


def test_clips_of_the_tutorial():
    clips, labels = tutorial.draw_clips(40)
    assert clips.shape == (40, 8, 32, 32, 3)
    assert jnp.bincount(labels).tolist() == [10] * 4
    assert jnp.abs(clips).max() <= 1
