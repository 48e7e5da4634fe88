"""Precision of matrix products that is requested from the compiler."""

import re

import jax
import pytest

from rsa_jax.evaluation.views import View
from rsa_jax.precision import PRECISIONS, with_precision
from rsa_jax.training.loop import make_run

PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution)\b[^\n]*")


def products(lowered):
    """Matrix products and convolutions of a program, as text."""
    return PRODUCT.findall(lowered.as_text())


@pytest.mark.parametrize("field", PRECISIONS)
def test_every_product_of_a_run_has_the_precision_of_the_configuration(config, field):
    """In the training step, gradients included, and in evaluation."""
    config.model.num_classes, config.matmul_precision, config.model.remat = 10, field, True
    run = make_run(config)
    shape = (16, 4, 36, 36, 3)
    number, real = jax.ShapeDtypeStruct((16,), "int32"), jax.ShapeDtypeStruct((16,), "float32")
    batch = {"frames": jax.ShapeDtypeStruct(shape, "uint8"), "label": number, "index": number, "epoch": number}
    batch |= {"mask": real}
    state = run.abstract_state()
    train = products(run.train_step.lower(state, batch))
    evaluate = products(run.evaluator.eval_step.lower(state.params, state.batch_stats, batch, View()))
    assert len(train) > 20
    assert len(evaluate) > 5
    # Two operands each. Some products always request the highest precision.
    highest = [line.count("HIGHEST") == 2 for line in train + evaluate]
    default = ["HIGH" not in line for line in train + evaluate]
    expected = {"float32": (True, False), "tensorfloat32": (False, False), "default": (False, True)}
    assert (all(highest), any(default)) == expected[field]


def test_a_function_without_a_precision_is_left_as_it_is():
    def double(x):
        return 2 * x

    assert with_precision(double, "default") is double
