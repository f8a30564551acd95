"""Rank correlations of a setting and a figure, one a seed, and their interval."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from expkit import claims

CONFIDENCE = 0.95


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman correlation of two figures over some settings.

    Args:
        x: one number a setting, [n].
        y: the other, [n].

    Returns:
        The correlation; 0 where one of them is the same everywhere, which is no trend,
        and nan where a number is not finite.
    """
    from scipy import stats

    x, y = np.asarray(x, float), np.asarray(y, float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    if np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def correlation_interval(
    correlations: Sequence[float],
) -> tuple[float, tuple[float, float]]:
    """Mean of one correlation a seed, and its confidence interval.

    Student's interval has no width where every seed gives the same value, as when all
    of them order the settings perfectly. Correlations are bounded, so that case has an
    interval of its own: if n of n seeds gave r, the chance of r is at least
    (0.05 / 2)^(1/n) with 95 % confidence, and the rest can be -1 or 1 at worst.

    Args:
        correlations: in [-1, 1], one a seed.

    Returns:
        `(mean, (low, high))`, otherwise as `claims.mean_interval` gives it, no further
        than -1 and 1 if all are finite.

    References:
        Clopper & Pearson, *The Use of Confidence or Fiducial Limits Illustrated in the
        Case of the Binomial*, Biometrika 26 (1934).
        https://doi.org/10.1093/biomet/26.4.404
    """
    mean, interval = claims.mean_interval(correlations, confidence=CONFIDENCE)
    n = len(correlations)
    if n < 2 or not np.isfinite(mean):
        return mean, interval
    if np.ptp(correlations) > 1e-9:
        return mean, (max(interval[0], -1.0), min(interval[1], 1.0))
    chance = (0.5 * (1.0 - CONFIDENCE)) ** (1.0 / n)
    return mean, (
        chance * mean - (1.0 - chance),
        chance * mean + (1.0 - chance),
    )
