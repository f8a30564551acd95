"""Lion: sign momentum with decoupled weight decay (Chen et al. 2023)."""

from lion.transform import ScaleByLionState, lion, scale_by_lion

__all__ = ["ScaleByLionState", "lion", "scale_by_lion"]
