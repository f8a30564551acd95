"""Inputs at which an unguarded exponential, logarithm, root or quotient shows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from expkit.testing.loss_case import LossCase


def extreme_inputs(case: LossCase) -> list[tuple[str, list[np.ndarray]]]:
    """Lists settings of the inputs at the extremes.

    For each value: all elements equal, alternating signs, and alternating between
    inputs, so that neither differences within an input nor between inputs cancel.

    Args:
        case: the loss.

    Returns:
        `(description, inputs)` pairs.
    """
    result = []
    for value in case.extremes:
        result.append((f"all inputs {value:g}", _fill(case, value, lambda n, i: 0 * n)))
    largest = max(case.extremes)
    smallest = min(case.extremes)
    for what, parity in (
        ("within each input", lambda n, i: n),
        ("within and between inputs", lambda n, i: n + i),
        ("between inputs", lambda n, i: 0 * n + i),
    ):
        text = f"{largest:g} and {smallest:g} alternating {what}"
        result.append((text, _fill(case, largest, parity, smallest)))
    return result


def _fill(
    case: LossCase,
    even: float,
    parity: Callable[[np.ndarray, int], Any],
    odd: float | None = None,
) -> list[np.ndarray]:
    """Fills input `i` with `even` or `odd` by the parity of `parity(n, i)`."""
    odd = even if odd is None else odd
    filled = []
    for i, leaf in enumerate(case.inputs()):
        flat = np.arange(np.size(leaf))
        values = np.where(parity(flat, i) % 2 == 0, even, odd)
        filled.append(values.reshape(np.shape(leaf)).astype(np.asarray(leaf).dtype))
    return filled
