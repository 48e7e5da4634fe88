"""Recipes. Each overrides a few fields of `common`."""
