"""Programs: python -m rsa_jax NAME."""
