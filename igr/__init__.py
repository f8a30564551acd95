"""Gradient penalties, explicit and implicit (Barrett & Dherin, 2020)."""

from igr.perturbation import fast_gradient_perturbation, gaussian_perturbation
from igr.virtual_adversarial import (
    virtual_adversarial_loss,
    virtual_adversarial_perturbation,
)

__all__ = [
    "fast_gradient_perturbation",
    "gaussian_perturbation",
    "virtual_adversarial_loss",
    "virtual_adversarial_perturbation",
]
