"""ChildTuning: fine-tuning a part of the parameters (Xu et al. 2021)."""

from childtuning.adamw import ChildAdamWState, child_adamw
from childtuning.fisher import fisher_information
from childtuning.masking import (
    ChildTuningDState,
    ChildTuningFState,
    child_tuning_d,
    child_tuning_f,
    update_dropout,
)
from childtuning.selection import fisher_mask, in_layers, trainable_fraction

__all__ = [
    "ChildAdamWState",
    "ChildTuningDState",
    "ChildTuningFState",
    "child_adamw",
    "child_tuning_d",
    "child_tuning_f",
    "fisher_information",
    "fisher_mask",
    "in_layers",
    "trainable_fraction",
    "update_dropout",
]
