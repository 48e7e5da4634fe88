"""Variants of studies."""

from pathlib import Path

import pytest

from configs import motion
from rsa_jax.studies.definitions import STUDIES
from rsa_jax.studies.trials import make_trials
from rsa_jax.studies.variants import choose_variants, make_variants


def test_variants_are_chosen_by_name_and_pattern():
    fields = {"self-attention, window": {}, "self-attention, everywhere": {}, "RSA": {}}
    assert list(choose_variants(fields, [])) == list(fields)
    assert list(choose_variants(fields, ["RSA", "*window"])) == ["self-attention, window", "RSA"]
    with pytest.raises(ValueError, match=r"--variants: 'rsa' matches none of\n  self-attention, window"):
        choose_variants(fields, ["RSA", "rsa"])


@pytest.mark.parametrize("name", [name for name in STUDIES if not name.startswith(("table", "supplement"))])
def test_every_variant_is_a_network_of_its_own(name):
    """For any transform in the configuration. Settings are compared, since another normalisation may cost the same."""
    config = motion.get_config()
    config.model.update(transform="tsm", num_classes=10)
    config.model.rsa.latent_dim = 8  # which some kernels do not have
    variants = make_variants(config, STUDIES[name])
    assert len({variant.config.model.to_json() for variant in variants}) == len(variants)
    assert len(make_trials(variants, range(2), Path())) == 2 * len(variants)
