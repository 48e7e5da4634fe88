"""Command-line programs: python -m rsa_jax.tools.NAME."""
