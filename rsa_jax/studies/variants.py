"""Variants of a study with their costs, chosen by name."""

import fnmatch
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from rsa_jax.costs.traced import NetworkCost, layer_costs, network_cost
from rsa_jax.studies.definitions import Study


class Variant(NamedTuple):
    """A variant of a study: its name, configuration and cost."""

    name: str
    config: ConfigDict
    cost: NetworkCost


def choose_variants(fields: Study, patterns: Sequence[str]) -> Study:
    """Variants of a study whose names match one of the patterns; without patterns, all of them.

    Raises:
        ValueError: If a pattern matches no name. The message lists the names.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in fields):
            raise ValueError(f"--variants: {pattern!r} matches none of\n  " + "\n  ".join(fields))
    return {
        name: changes
        for name, changes in fields.items()
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def make_variants(config: ConfigDict, fields: Study, needed: Collection[str] | None = None) -> list[Variant]:
    """Variants of a study with their cost, checked before hours are spent on one of them.

    Args:
        config: base configuration of all variants.
        fields: fields that each variant changes, by its name.
        needed: names of the variants that the configuration must fit; others that do not fit are left out. None: all.

    Raises:
        ValueError: If the configuration does not fit some needed variants. The message names each, and the reason.
    """
    variants: list[Variant] = []
    wrong = []
    for name, changes in fields.items():
        changed = config.copy_and_resolve_references()
        # The last checkpoint, not the best: selection by the compared metric would favour noisy variants.
        changed.eval.checkpoint = "latest"
        try:
            changed.update_from_flattened_dict(changes)
            changed.init_from = changed.init_from.replace("{variant}", slug(name)).replace(
                "{transform}", changed.model.transform
            )
            variants.append(Variant(name, changed, network_cost(layer_costs(changed))))
        except (KeyError, TypeError, ValueError) as error:
            if needed is None or name in needed:
                wrong.append(f"  {name}: {error.args[0]}")
    if wrong:
        raise ValueError("Variants that this configuration does not fit:\n" + "\n".join(wrong))
    return variants


def slug(variant: str) -> str:
    """Folder name for a variant."""
    return re.sub("[^a-z0-9.]+", "_", variant.lower()).strip("_")
