"""Benchmarks of speed and memory, each against a stated baseline: see README.md."""
