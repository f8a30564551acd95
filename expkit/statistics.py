"""Intervals over a few seeds, and the verdict an interval gives.

    mean, interval = paired_difference(accuracy_lion, accuracy_adamw)
    decide(interval, at_least=0.0)      # "holds", "does not hold" or "not decided"

Resampling three numbers does not know how far the fourth would lie: the percentile
bootstrap of 3 normal values covers their mean about 3 times in 4, at a nominal 95 %,
and the bias-corrected one of 10 still only 9 times in 10. So below `BOOTSTRAP_FROM`
values the interval is Student's t. It covers the choice of seeds, on the test set at
hand; `crossed_difference` covers the choice of a small test set too.
"""

import warnings
from collections.abc import Sequence
from typing import SupportsFloat

import numpy as np

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold"
NOT_DECIDED = "not decided"
NOT_TESTABLE = "not testable here"
VERDICTS = (HOLDS, DOES_NOT_HOLD, NOT_DECIDED, NOT_TESTABLE)

BOOTSTRAP_FROM = 30
"""Number of values from which the interval is a bootstrap."""

Interval = tuple[float, float]
Values = Sequence[SupportsFloat | None] | np.ndarray


def mean_interval(
    values: Values, *, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Mean of one value a seed, and its confidence interval.

    Args:
        values: one number a seed; None and nan (a run that diverged) leave the interval
            infinite.
        confidence: coverage, in (0, 1).

    Returns:
        `(mean, (low, high))`: the bias-corrected accelerated bootstrap with a fixed
        seed for 30 values and more, Student's t for fewer and where rounding leaves no
        bootstrap, as of 30 values that differ in the last digit; `(mean, mean)` if all
        values are equal; infinite for fewer than two values.

    Raises:
        ValueError: if `values` is not one-dimensional or `confidence` not in (0, 1).

    References:
        Efron, *Better Bootstrap Confidence Intervals*, JASA 82 (1987), section 3.
        https://doi.org/10.1080/01621459.1987.10478410
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}.")
    array = np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise ValueError(f"values must be one number a seed, got shape {array.shape}.")
    mean = float(array.mean()) if array.size else float("nan")
    if array.size < 2 or not np.isfinite(array).all():
        return mean, (-np.inf, np.inf)
    if np.ptp(array) == 0.0:
        return mean, (mean, mean)
    if array.size >= BOOTSTRAP_FROM:
        interval = _bootstrap(array, confidence)
        if np.isfinite(interval).all():
            return mean, interval
    return mean, _student(array, confidence)


def _student(array: np.ndarray, confidence: float) -> Interval:
    from scipy import stats

    half = stats.t.ppf(0.5 + confidence / 2, array.size - 1) * stats.sem(array)
    return float(array.mean() - half), float(array.mean() + half)


def _bootstrap(array: np.ndarray, confidence: float) -> Interval:
    from scipy import stats

    # Of values too near to one another it warns and gives nan.
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        result = stats.bootstrap(
            (array,),
            np.mean,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(0),
        )
    low, high = result.confidence_interval
    return float(low), float(high)


def paired_difference(
    a: Values, b: Values, *, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Mean of `a - b` over paired seeds, and its confidence interval.

    Args:
        a: one number a seed.
        b: one number for each of the same seeds, in the same order.
        confidence: coverage, in (0, 1).

    Returns:
        `(mean, (low, high))` of the differences, as `mean_interval` gives it.

    Raises:
        ValueError: if the two do not pair up, or as `mean_interval` raises.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(
            "a and b must hold one number for each of the same seeds, got shapes "
            f"{first.shape} and {second.shape}."
        )
    return mean_interval(first - second, confidence=confidence)


def crossed_difference(
    a: np.ndarray, b: np.ndarray, *, confidence: float = 0.95
) -> tuple[float, Interval]:
    r"""Mean of `a - b` with an interval that covers other seeds and other examples.

    With differences :math:`d_{se}` of seed s on example e, the variance of their mean
    has a part of the seeds, one of the examples, and one of both that the two count
    twice:

    .. math:: \frac{\mathrm{var}_s(\bar d_{s\cdot})}{S}
        + \frac{\mathrm{var}_e(\bar d_{\cdot e})}{E}
        - \frac{\mathrm{var}_{se}(d_{se} - \bar d_{s\cdot} - \bar d_{\cdot e}
        + \bar d)}{S E}.

    It counts as no less than the larger of the first two, and has the degrees of
    freedom of Satterthwaite.

    Args:
        a: whether each seed is right on each example, or how much, [seeds, examples].
        b: the same of another, with the same seeds and examples.
        confidence: coverage, in (0, 1).

    Returns:
        `(mean, (low, high))`, Student's t; infinite for fewer than two seeds or
        examples, and where a number is not finite.

    Raises:
        ValueError: if the two are not matrices of one shape, or `confidence` is not in
            (0, 1).

    References:
        Cameron, Gelbach and Miller, *Robust Inference with Multiway Clustering*, 2011,
        section 2.2. https://doi.org/10.1198/jbes.2010.07136
    """
    from scipy import stats

    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}.")
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            "a and b must be [seeds, examples] of one shape, got shapes "
            f"{first.shape} and {second.shape}."
        )
    d = first - second
    mean = float(d.mean()) if d.size else float("nan")
    if min(d.shape) < 2 or not np.isfinite(d).all():
        return mean, (-np.inf, np.inf)
    rows, columns = d.mean(axis=1), d.mean(axis=0)
    parts = np.array([rows.var(ddof=1) / rows.size, columns.var(ddof=1) / columns.size])
    freedom = np.array([rows.size - 1, columns.size - 1])
    rest = d - rows[:, None] - columns + mean
    twice = np.sum(rest**2) / freedom.prod() / d.size
    variance = max(parts.sum() - twice, parts.max())
    if variance == 0.0:
        return mean, (mean, mean)
    df = parts.sum() ** 2 / np.sum(parts**2 / freedom)
    half = float(stats.t.ppf(0.5 + confidence / 2, df) * np.sqrt(variance))
    return mean, (mean - half, mean + half)


def covered(values: np.ndarray) -> str:
    """What an interval of `crossed_difference` on images covers, in words.

    Args:
        values: has the axis of the test images last.

    Returns:
        A sentence.
    """
    count = values.shape[-1]
    return f"The interval covers the choice of seeds and of the {count} test images."


def decide(
    interval: Interval,
    is_open: Sequence[bool] = (False, False),
    /,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> str:
    """Verdict of a claim that a number lies in a region, bounds included.

    Args:
        interval: `(low, high)` of the number.
        is_open: of a difference of two that are tuned, whether the first and whether
            the second may be higher with settings that were not tried: an end of the
            interval that this may move decides nothing.
        at_least: lower bound of the claimed region; None for no bound.
        at_most: upper bound of the claimed region; None for no bound.

    Returns:
        `HOLDS` if the whole interval lies in the region, `DOES_NOT_HOLD` if no part of
        it does, `NOT_DECIDED` otherwise, whenever an end is not finite, and for an
        interval without width: runs that agree to the last digit (such as three equal
        accuracies on a small test set) say nothing of the next one.

    Raises:
        ValueError: if no bound is given, or bounds or interval are the wrong way round.
    """
    low, high = float(interval[0]), float(interval[1])
    least = -np.inf if at_least is None else float(at_least)
    most = np.inf if at_most is None else float(at_most)
    if at_least is None and at_most is None:
        raise ValueError("a region needs a bound: give at_least, at_most or both.")
    if least > most:
        raise ValueError(f"at_least={at_least!r} is above at_most={at_most!r}.")
    if low > high:
        raise ValueError(f"interval ends are the wrong way round: {interval!r}.")
    is_width_known = high - low > 1e-12 * max(abs(low), abs(high))
    if not np.isfinite([low, high]).all() or not is_width_known:
        return NOT_DECIDED
    low, high = -np.inf if is_open[1] else low, np.inf if is_open[0] else high
    if least <= low and high <= most:
        return HOLDS
    if high < least or low > most:
        return DOES_NOT_HOLD
    return NOT_DECIDED
