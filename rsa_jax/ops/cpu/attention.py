"""The plain JAX implementation, in chunks whose attention weights fit in the cache."""

from functools import partial

from rsa_jax.ops import xla

_AT_ONCE = 2**18

attend_in_window = partial(xla.attend_in_window, logits_at_once=_AT_ONCE)
attend = partial(xla.attend, logits_at_once=_AT_ONCE)
