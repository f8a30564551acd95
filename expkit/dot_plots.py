"""Dots for runs: a row for each arm of a comparison.

draw = lambda fig: arms(fig.subplots(), {"R-Drop": accuracies}, xlabel="accuracy")
"""

import textwrap
from collections.abc import Mapping, Sequence
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

    The interval of two or three seeds can be many times as wide as they are apart: it
    is cut where it would squeeze the dots into a point, and ends in an arrow there.

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
    rows = [np.asarray(numbers, dtype=float) for numbers in values.values()]
    summaries = [statistics.mean_interval(numbers) for numbers in rows]
    places = [*np.concatenate(rows), *([] if reference is None else [reference[1]])]
    limits = _limits(places, [interval for _, interval in summaries])
    for row, (numbers, summary) in enumerate(zip(rows, summaries, strict=True)):
        ax.plot(numbers, np.full(len(numbers), row), zorder=3, **_DOTS)
        _draw_mean(ax, row, *summary, limits)
    if reference is not None:
        label, place = reference
        label = textwrap.fill(label, 44)
        ax.axvline(place, linestyle="--", color="C2", label=label)
        _legend(ax)
    ax.set_xlim(*limits)
    ax.set_yticks(range(len(values)), [textwrap.fill(v, 18) for v in values])
    ax.set_ylim(len(values) - 0.5, -0.5)  # the first arm on top
    ax.set(xlabel=xlabel)


_DOTS = {"color": "C0", "linestyle": "", "marker": "o", "markersize": 4}


def _legend(ax: Any) -> None:
    """Above the axes, from the edge of the figure: beside long names it has no room."""
    from matplotlib.transforms import blended_transform_factory

    edge = blended_transform_factory(ax.figure.transFigure, ax.transAxes)
    place = {"bbox_to_anchor": (0.0, 1.0), "bbox_transform": edge}
    ax.legend(loc="lower left", borderaxespad=0.2, **place)


def _limits(
    places: Sequence[float], intervals: Sequence[statistics.Interval]
) -> statistics.Interval:
    """Ends of the axis: all places, and intervals as far as there is room."""
    places = [place for place in places if np.isfinite(place)] or [0.0]
    low, high = min(places), max(places)
    span = high - low or 0.02
    ends = np.ravel(intervals)
    ends = np.clip(ends[np.isfinite(ends)], low - span / 2, high + span / 2)
    margin = 0.1 * span
    return float(min([low, *ends])) - margin, float(max([high, *ends])) + margin


def _draw_mean(ax, row: int, mean: float, interval, limits) -> None:
    """The mean as a tick and its interval as a bar, with an arrow where it is cut."""
    ax.plot([mean], [row], marker="|", markersize=12, mew=2.5, color="C1", zorder=4)
    if not np.isfinite(interval).all():
        return
    inset = 0.02 * (limits[1] - limits[0])
    seen = np.clip(interval, limits[0] + inset, limits[1] - inset)
    ax.plot(seen, [row, row], color="C1", linestyle="-")
    for end, whole, arrow in zip(seen, interval, "<>", strict=True):
        marker = "|" if end == whole else arrow
        ax.plot([end], [row], marker=marker, markersize=7, color="C1")
