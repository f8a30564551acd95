"""R-Drop: two passes with dropout that have to agree (Liang et al. 2021)."""

from rdrop.conventions import (
    CONVENTIONS,
    Convention,
    convention_scale,
    convert_alpha,
)
from rdrop.divergence import symmetric_kl
from rdrop.losses import consistency_loss, rdrop_loss, rdrop_regression_loss
from rdrop.passes import two_passes

__all__ = [
    "CONVENTIONS",
    "Convention",
    "consistency_loss",
    "convention_scale",
    "convert_alpha",
    "rdrop_loss",
    "rdrop_regression_loss",
    "symmetric_kl",
    "two_passes",
]
