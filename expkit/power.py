"""What an experiment would have seen: the power behind a verdict.

    detectable_difference(half_width, len(seeds))  # seen 4 times in 5

An interval that holds both "better" and "worse" says nothing of whether there is no
effect or there were too few seeds; the effect that would likely have shown tells.
"""

import math
from collections.abc import Sized

from expkit.statistics import HOLDS, Interval


def detectable_difference(
    half_width: float, count: int, *, power: float = 0.8, confidence: float = 0.95
) -> float:
    r"""The least true mean that so many values would likely show to be above zero.

    The d at which the interval of Student's t lies above zero with the asked
    probability: :math:`P(T > t) = \text{power}` for T of the noncentral t distribution
    of n - 1 degrees of freedom and noncentrality :math:`d / \mathrm{SE}`, with t the
    quantile of the interval and :math:`\mathrm{SE}` its half width divided by t.

    Args:
        half_width: of the interval of a mean, at least 0.
        count: how many values are behind it.
        power: probability of seeing it, in [0.5, 1).
        confidence: coverage of the interval, in (0, 1).

    Returns:
        The difference, at least 0; infinite for fewer than two values, and where the
        width is not finite.

    Raises:
        ValueError: if a probability is out of range.

    References:
        Cohen, *Statistical Power Analysis for the Behavioral Sciences*, 1988, section
        2.3, with the noncentral t distribution itself in place of its tables.
    """
    from scipy import optimize, stats

    if not 0.5 <= power < 1.0:
        raise ValueError(f"power must be in [0.5, 1), got {power!r}.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}.")
    if count < 2 or not math.isfinite(half_width):
        return math.inf
    df = count - 1
    bound = float(stats.t.ppf(0.5 + confidence / 2, df))
    most = 4.0 * bound + 10.0
    while stats.nct.sf(bound, df, most) < power:
        most *= 2.0
    found = optimize.root_scalar(
        lambda nc: stats.nct.sf(bound, df, nc) - power, bracket=(0.0, most)
    )
    return float(found.root) / bound * half_width


def sentence(
    measured: float | str | None,
    verdict: str,
    interval: Interval | None,
    seeds: Sized | None,
    *,
    is_ratio: bool = False,
) -> str:
    """What the details of a finding say of its power.

    Args:
        measured: the number.
        verdict: one of `statistics.VERDICTS`.
        interval: of the number.
        seeds: those behind the number.
        is_ratio: whether the number is a ratio, with an interval of its logarithm.

    Returns:
        A sentence; nothing for a claim that holds, and without seeds or a number.
    """
    if verdict == HOLDS or interval is None or seeds is None or len(seeds) < 2:
        return ""
    if not isinstance(measured, float | int):
        return ""
    low, high = interval
    if not all(map(math.isfinite, (measured, low, high))):
        return ""
    if low == high:
        return "All seeds agree, which says nothing of the noise."
    half = 0.5 * (math.log(high / low) if is_ratio else high - low)
    seen = detectable_difference(half, len(seeds))
    words = f"a ratio of {math.exp(seen):.3g}" if is_ratio else f"{seen:.2g}"
    return (
        f"With this noise and {len(seeds)} seeds, {words} would be seen with a "
        "probability of 80 %."
    )
