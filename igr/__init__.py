"""Gradient penalties, explicit and implicit (Barrett & Dherin, 2020)."""

from igr.flooding import flood
from igr.implicit import (
    implicit_regularizer,
    modified_flow,
    modified_loss,
    stochastic_modified_loss,
)
from igr.inequality import (
    Inequality,
    InputGradientBound,
    input_gradient_bound,
    penalty_inequality,
)
from igr.penalty import with_gradient_penalty
from igr.per_example_penalty import with_per_example_gradient_penalty
from igr.perturbation import fast_gradient_perturbation, gaussian_perturbation
from igr.tracker import GradientNormState, track_gradient_norm
from igr.two_batch_penalty import two_batch_gradient_penalty
from igr.virtual_adversarial import (
    virtual_adversarial_loss,
    virtual_adversarial_perturbation,
)

__all__ = [
    "GradientNormState",
    "Inequality",
    "InputGradientBound",
    "fast_gradient_perturbation",
    "flood",
    "gaussian_perturbation",
    "implicit_regularizer",
    "input_gradient_bound",
    "modified_flow",
    "modified_loss",
    "penalty_inequality",
    "stochastic_modified_loss",
    "track_gradient_norm",
    "two_batch_gradient_penalty",
    "virtual_adversarial_loss",
    "virtual_adversarial_perturbation",
    "with_gradient_penalty",
    "with_per_example_gradient_penalty",
]
