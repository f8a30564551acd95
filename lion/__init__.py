"""Lion: sign momentum with decoupled weight decay (Chen et al. 2023)."""

from lion.momentum import Int8Momentum
from lion.rounding import StochasticRoundingState, stochastic_rounding
from lion.transform import ScaleByLionState, lion, scale_by_lion

__all__ = [
    "Int8Momentum",
    "ScaleByLionState",
    "StochasticRoundingState",
    "lion",
    "scale_by_lion",
    "stochastic_rounding",
]
