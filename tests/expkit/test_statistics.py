import math
import warnings

import numpy as np
import pytest
from scipy import stats

from expkit.statistics import (
    BOOTSTRAP_FROM,
    DOES_NOT_HOLD,
    HOLDS,
    NOT_DECIDED,
    covered,
    crossed_difference,
    decide,
    mean_interval,
    paired_difference,
)


def test_interval_of_three_values_is_the_one_of_the_textbook():
    # Mean 2, standard deviation 1, and t(0.975, 2 degrees of freedom) = 4.302653 from
    # the table of the t distribution: half width 4.302653 / sqrt(3).
    mean, (low, high) = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    np.testing.assert_allclose([low, high], 2.0 + np.array([-1, 1]) * 2.484138, 1e-6)


def test_few_pairs_agree_with_the_paired_t_test_of_scipy():
    a, b = [0.91, 0.93, 0.95, 0.90, 0.94], [0.90, 0.93, 0.92, 0.91, 0.90]
    mean, interval = paired_difference(a, b, confidence=0.9)
    expected = stats.ttest_rel(a, b).confidence_interval(0.9)
    np.testing.assert_allclose(mean, np.mean(a) - np.mean(b))
    np.testing.assert_allclose(interval, expected)


def test_pairing_removes_what_the_seeds_share():
    seed_effect = np.array([0.0, 10.0, -7.0, 3.0])
    a, b = seed_effect + np.array([1.0, 1.1, 0.9, 1.0]), seed_effect
    _, (low, high) = paired_difference(a, b)
    assert 0.8 < low < high < 1.2
    # Negative control: in another order the same numbers tell nothing.
    _, (low, high) = paired_difference(a, b[::-1])
    assert low < 0.0 < high


def _bca_by_hand(values, confidence, n_resamples, seed):
    """Efron 1987: percentiles shifted by bias (z0) and skewness (acceleration)."""
    rng = np.random.default_rng(seed)
    n, mean = len(values), np.mean(values)
    draws = np.sort(rng.choice(values, (n_resamples, n)).mean(axis=1))
    z0 = stats.norm.ppf((np.mean(draws < mean) + np.mean(draws <= mean)) / 2)
    left_out = (np.sum(values) - values) / (n - 1)
    away = left_out.mean() - left_out
    acceleration = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    z = z0 + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return np.quantile(draws, stats.norm.cdf(z0 + z / (1 - acceleration * z)))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_many_values_get_the_bias_corrected_accelerated_bootstrap(confidence):
    values = np.random.default_rng(0).exponential(size=30)
    _, interval = mean_interval(values, confidence=confidence)
    by_hand = _bca_by_hand(values, confidence, 200_000, seed=1)
    np.testing.assert_allclose(interval, by_hand, rtol=0.04)
    # Negative control: the skewed sample tells it from the symmetric interval.
    symmetric = stats.t.interval(
        confidence, len(values) - 1, values.mean(), stats.sem(values)
    )
    assert not np.allclose(interval, symmetric, rtol=0.04)


def test_up_to_29_values_get_student_and_30_the_bootstrap():
    values = np.random.default_rng(0).exponential(size=30)
    for count, is_student in ((29, True), (30, False)):
        sample = values[:count]
        _, interval = mean_interval(sample)
        student = stats.t.interval(0.95, count - 1, sample.mean(), stats.sem(sample))
        assert np.allclose(interval, student) is is_student


def test_bootstrap_is_the_same_every_time():
    values = np.random.default_rng(0).normal(size=BOOTSTRAP_FROM)
    assert mean_interval(values) == mean_interval(values)


def test_interval_of_three_seeds_covers_and_the_percentile_bootstrap_would_not():
    samples = np.random.default_rng(0).normal(size=(2000, 3))
    intervals = np.array([mean_interval(sample)[1] for sample in samples])
    covered = (intervals[:, 0] <= 0.0) & (intervals[:, 1] >= 0.0)
    assert 0.93 <= covered.mean() <= 0.97
    # All 27 resamples of three values, so this is the bootstrap without sampling error.
    picks = np.stack(np.meshgrid(*[range(3)] * 3)).reshape(3, 27)
    means = samples[:, picks].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert ((low <= 0.0) & (high >= 0.0)).mean() < 0.85


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_equal_differences_give_a_point(count):
    b = np.arange(count, dtype=float)
    assert paired_difference(b + 0.5, b) == (0.5, (0.5, 0.5))


@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0, math.nan, 2.0], [1.0, None, 2.0], [math.inf] * 9]
)
def test_too_few_or_diverged_values_leave_the_interval_infinite(values):
    assert mean_interval(values)[1] == (-np.inf, np.inf)


@pytest.mark.parametrize("count", [10, 40])
def test_one_value_unlike_the_others_gives_a_finite_interval(count):
    _, interval = mean_interval([0.0] * (count - 1) + [1.0])
    assert np.isfinite(interval).all()
    assert interval[0] <= 1 / count <= interval[1]


@pytest.mark.parametrize(
    "values",
    [
        # Their means round to one number, or cubes of their differences to 0.
        np.array([1.0] * 29 + [np.nextafter(1.0, 2.0)]),
        1e-120 * np.random.default_rng(0).normal(size=30),
    ],
)
def test_many_values_too_near_for_a_bootstrap_get_student_without_a_warning(values):
    with pytest.warns(RuntimeWarning):  # the control: there is no bootstrap of them
        bootstrap = stats.bootstrap((values,), np.mean, rng=0).confidence_interval
    assert np.isnan(bootstrap).all()
    with warnings.catch_warnings(action="error"):
        _, interval = mean_interval(values)
    student = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval, student, rtol=1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"got shape \(1, 2\)"):
        mean_interval([[1, 2]])
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got 95"):
        mean_interval([1, 2], confidence=95)
    with pytest.raises(ValueError, match="needs a bound"):
        decide((0, 1))
    with pytest.raises(ValueError, match="at_least=2 is above at_most=1"):
        decide((0, 1), at_least=2, at_most=1)
    with pytest.raises(ValueError, match="wrong way round"):
        decide((1, 0), at_least=0)


@pytest.mark.parametrize(
    ("interval", "region", "verdict"),
    [
        ((0.1, 0.2), {"at_least": 0.0}, HOLDS),
        ((0.0, 0.2), {"at_least": 0.0}, HOLDS),
        ((-0.1, 0.2), {"at_least": 0.0}, NOT_DECIDED),
        ((-0.2, 0.0), {"at_least": 0.0}, NOT_DECIDED),
        ((-0.2, -0.1), {"at_least": 0.0}, DOES_NOT_HOLD),
        ((-0.2, -0.1), {"at_most": 0.0}, HOLDS),
        ((0.1, 0.2), {"at_most": 0.0}, DOES_NOT_HOLD),
        ((4.0, 9.0), {"at_least": 3.0, "at_most": 10.0}, HOLDS),
        ((2.0, 12.0), {"at_least": 3.0, "at_most": 10.0}, NOT_DECIDED),
        ((11.0, 12.0), {"at_least": 3.0, "at_most": 10.0}, DOES_NOT_HOLD),
        # Without width but for the last digit, and narrow.
        ((0.3, np.nextafter(0.3, 1.0)), {"at_least": 0.0}, NOT_DECIDED),
        ((np.nextafter(-0.3, -1.0), -0.3), {"at_most": 0.0}, NOT_DECIDED),
        ((1.0, 1.0005), {"at_least": 0.0}, HOLDS),
        ((-1.0005, -1.0), {"at_most": 0.0}, HOLDS),
        ((1e-9, 1.001e-9), {"at_least": 0.0}, HOLDS),
        ((1.0, np.inf), {"at_least": 0.0}, NOT_DECIDED),
        ((-np.inf, np.inf), {"at_least": 0.0}, NOT_DECIDED),
        ((np.nan, np.nan), {"at_most": 0.0}, NOT_DECIDED),
    ],
)
def test_verdict_follows_from_interval_and_region(interval, region, verdict):
    assert decide(interval, **region) == verdict


@pytest.mark.parametrize(
    ("interval", "region", "safe"),
    [
        # Whether the verdict stays with: neither, the first, the second, both open.
        ((0.1, 0.2), {"at_least": 0.0}, (True, True, False, False)),
        ((-0.2, -0.1), {"at_least": 0.0}, (True, False, True, False)),
        ((-0.2, -0.1), {"at_most": 0.0}, (True, False, True, False)),
        ((0.1, 0.2), {"at_most": 0.0}, (True, True, False, False)),
        ((-0.1, 0.1), {"at_least": -1.0, "at_most": 1.0}, (True, False, False, False)),
        ((2.0, 3.0), {"at_least": -1.0, "at_most": 1.0}, (True, True, False, False)),
        ((-0.1, 0.1), {"at_least": 0.0}, (True, True, True, True)),  # nothing decided
    ],
)
def test_a_verdict_is_safe_where_only_the_winner_may_do_better(interval, region, safe):
    verdict = decide(interval, **region)
    sides = [(False, False), (True, False), (False, True), (True, True)]
    assert [decide(interval, side, **region) for side in sides] == [
        verdict if stays else NOT_DECIDED for stays in safe
    ]
    # A side that does better moves its end of the interval: the verdict it would give.
    for is_open, expected in zip(sides, safe, strict=True):
        moved = interval[0] - 9.0 * is_open[1], interval[1] + 9.0 * is_open[0]
        assert (decide(moved, **region) == verdict) == expected


def _crossed(rng, seeds, examples, deviations, count):
    """Differences with a known mean of 0 and effects of seeds, examples and both."""
    of_seed, of_example, of_both = deviations
    return (
        of_seed * rng.normal(size=(count, seeds, 1))
        + of_example * rng.normal(size=(count, 1, examples))
        + of_both * rng.normal(size=(count, seeds, examples))
    )


@pytest.mark.parametrize(
    "deviations",
    [
        pytest.param((1.0, 5.0, 1.0), marks=pytest.mark.slow),
        (1.0, 0.0, 1.0),
        (0.0, 5.0, 1.0),
        (0.3, 3.0, 5.0),
    ],
)
def test_a_crossed_interval_covers_the_mean_as_often_as_it_says(deviations):
    """In simulated differences; at most a little more often, where a part is 0."""
    tables = _crossed(np.random.default_rng(0), 10, 60, deviations, 1_000)
    found = [crossed_difference(table, 0.0 * table)[1] for table in tables]
    covered = np.mean([low <= 0.0 <= high for low, high in found])
    assert 0.93 < covered < 0.985
    # Over seeds alone the control does not cover the choice of the examples.
    alone = [mean_interval(table.mean(axis=1))[1] for table in tables]
    only_seeds = np.mean([low <= 0.0 <= high for low, high in alone])
    if deviations[1]:
        assert only_seeds < 0.9
    else:
        assert only_seeds > 0.93


def test_a_crossed_interval_without_examples_that_differ_is_that_of_the_seeds():
    rows = np.array([0.1, 0.4, 0.2, 0.35])
    table = np.repeat(rows[:, None], 7, axis=1)
    mean, interval = crossed_difference(table, 0.0 * table)
    expected = stats.ttest_1samp(rows, 0.0).confidence_interval()
    assert mean == pytest.approx(rows.mean())
    np.testing.assert_allclose(interval, expected)
    transposed = crossed_difference(table.T, 0.0 * table.T)
    np.testing.assert_allclose(transposed[1], expected)


# 5 plus the effects (-3, 0, 3) of seeds, (-3, -1, 1, 3) of examples, and k times
# (1, -2, 1) by (1, -1, -1, 1) of both; k = 1 and k = 3.
ONE_OF_BOTH = [[0, 0, 2, 6], [0, 6, 8, 6], [6, 6, 8, 12]]
THREE_OF_BOTH = [[2, -2, 0, 8], [-4, 10, 12, 2], [8, 4, 6, 14]]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    ("table", "variance"),
    [
        # The squares of the three effects sum up to 18, 20 and 24 k^2. The part of the
        # seeds is 18 / 2 / 3 = 3, that of the examples 20 / 3 / 4 = 5 / 3, and what
        # these count twice 24 k^2 / (2 * 3) / (3 * 4) = k^2 / 3.
        (ONE_OF_BOTH, 3 + 5 / 3 - 1 / 3),
        # Less 3 they would be 5 / 3, so it counts as 3, the larger part.
        (THREE_OF_BOTH, 3),
    ],
)
def test_a_crossed_interval_of_both_effects_is_the_one_worked_by_hand(
    table, variance, confidence
):
    # Satterthwaite: (3 + 5 / 3)^2 / (3^2 / 2 + (5 / 3)^2 / 3) = 1176 / 293.
    half = stats.t.ppf(0.5 + confidence / 2, 1176 / 293) * math.sqrt(variance)
    shared = np.random.default_rng(0).integers(9, size=(3, 4))
    mean, interval = crossed_difference(table + shared, shared, confidence=confidence)
    assert mean == pytest.approx(5.0, rel=1e-14)
    np.testing.assert_allclose(interval, [5.0 - half, 5.0 + half], rtol=1e-12)


def test_what_a_crossed_interval_covers_names_the_images():
    assert "of the 7 test images" in covered(np.ones((3, 4, 7)))


def test_a_crossed_interval_names_what_it_cannot_use():
    with pytest.raises(ValueError, match=r"of one shape, got shapes \(3,\) and \(3,\)"):
        crossed_difference(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got 1.0"):
        crossed_difference(np.ones((2, 2)), np.zeros((2, 2)), confidence=1.0)
    for table in (np.ones((1, 5)), np.full((2, 5), np.nan)):
        assert crossed_difference(table, np.zeros(table.shape))[1] == (-np.inf, np.inf)
    same = crossed_difference(np.ones((3, 5)), np.zeros((3, 5)))
    assert same == (1.0, (1.0, 1.0))
    assert decide(same[1], at_least=0.0) == NOT_DECIDED
