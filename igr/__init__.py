"""Gradient penalties, explicit and implicit (Barrett & Dherin, 2020)."""

from igr.implicit import (
    implicit_regularizer,
    modified_flow,
    modified_loss,
    stochastic_modified_loss,
)

__all__ = [
    "implicit_regularizer",
    "modified_flow",
    "modified_loss",
    "stochastic_modified_loss",
]
