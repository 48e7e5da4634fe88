"""Comparison of network variants over several seeds."""
