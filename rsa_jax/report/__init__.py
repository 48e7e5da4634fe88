"""The report of an evaluation: one page that needs nothing but a browser."""

from rsa_jax.report.page import write_report

__all__ = ["write_report"]
