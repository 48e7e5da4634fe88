"""Figures of clips, kernels and studies."""
