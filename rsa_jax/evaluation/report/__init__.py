"""Evaluation report: one self-contained HTML page."""

from rsa_jax.evaluation.report.page import write_report

__all__ = ["write_report"]
