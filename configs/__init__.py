"""Recipes: each a few lines over `common`."""
