"""Dots for runs: a row for each arm of a comparison.

draw = lambda fig: arms(fig.subplots(), {"R-Drop": accuracies}, xlabel="accuracy")
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from expkit import statistics


def arms(
    ax: Any,
    values: Mapping[str, ArrayLike],
    *,
    xlabel: str = "",
    reference: tuple[str, float] | None = None,
) -> None:
    """One row for each arm: a dot for every seed, and the mean with its interval.

    Args:
        ax: matplotlib axes.
        values: one number a seed for each label; nan (a run that diverged) leaves its
            dot and the interval out.
        xlabel: label of the horizontal axis.
        reference: label and place of a dashed line.

    Raises:
        ValueError: if there is no arm.
    """
    if not values:
        raise ValueError("arms needs at least one arm.")
    for row, numbers in enumerate(values.values()):
        numbers = np.asarray(numbers, dtype=float)
        dots = {"color": "C0", "linestyle": "", "marker": "o", "markersize": 4}
        ax.plot(numbers, np.full(len(numbers), row), zorder=3, **dots)
        mean, (low, high) = statistics.mean_interval(numbers)
        bar = [[mean - low], [high - mean]] if np.isfinite([low, high]).all() else None
        ax.errorbar([mean], [row], xerr=bar, marker="o", capsize=3, color="C1")
    if reference is not None:
        label, place = reference
        ax.axvline(place, linestyle="--", color="C2", label=label)
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    # The interval of few seeds would squeeze the dots into a point.
    everything = np.concatenate([np.asarray(v, dtype=float) for v in values.values()])
    places = [*everything, *([] if reference is None else [reference[1]])]
    places = [place for place in places if np.isfinite(place)] or [0.0]
    margin = 0.15 * (max(places) - min(places)) or 0.01
    ax.set_xlim(min(places) - margin, max(places) + margin)
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    ax.set(xlabel=xlabel)
