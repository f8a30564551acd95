"""Gradient penalties, explicit and implicit (Barrett & Dherin, 2020)."""

from igr.penalty import with_gradient_penalty

__all__ = ["with_gradient_penalty"]
