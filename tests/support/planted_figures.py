"""Figures to plant where an experiment would train."""

import numpy as np

SPREAD = np.array([-0.01, 0.01, 0.0, 0.005, -0.005])
"""How five seeds differ from their mean."""


def is_middle(settings, grid):
    """Whether every setting is the middle one of its grid."""
    return all(settings[name] == v[len(v) // 2] for name, v in grid.items())
