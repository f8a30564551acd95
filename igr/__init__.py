"""Gradient penalties, explicit and implicit (Barrett & Dherin, 2020)."""

from igr.inequality import (
    Inequality,
    InputGradientBound,
    input_gradient_bound,
    penalty_inequality,
)

__all__ = [
    "Inequality",
    "InputGradientBound",
    "input_gradient_bound",
    "penalty_inequality",
]
