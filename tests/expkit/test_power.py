"""Detectable differences against simulated pairs and a textbook, and their words."""

import numpy as np
import pytest
from scipy import stats

from expkit import power
from expkit.statistics import DOES_NOT_HOLD, HOLDS, NOT_DECIDED, mean_interval


def half_width(values, confidence=0.95):
    _, (low, high) = mean_interval(values, confidence=confidence)
    return (high - low) / 2


@pytest.mark.parametrize(
    ("count", "chance"), [(2, 0.8), (3, 0.8), (10, 0.8), (5, 0.95)]
)
def test_a_detectable_difference_is_seen_as_often_as_asked(count, chance):
    """In simulated values of known noise, by the interval itself."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, count))
    sample = rows[0] / rows[0].std(ddof=1)  # its noise is exactly 1
    effect = power.detectable_difference(half_width(sample), count, power=chance)
    means, errors = rows.mean(axis=1), stats.sem(rows, axis=1)
    lower = means + effect - stats.t.ppf(0.975, count - 1) * errors
    assert np.mean(lower > 0.0) == pytest.approx(chance, abs=0.012)
    smaller = lower - 0.3 * effect  # the control
    assert np.mean(smaller > 0.0) < chance - 0.1


def test_a_detectable_difference_is_the_one_of_the_textbook():
    """34 values show half a standard deviation with 80 %: a common example."""
    half = stats.t.ppf(0.975, 33) / np.sqrt(34)
    assert power.detectable_difference(half, 34) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("chance", [0.99999, 0.9999999])
def test_a_power_near_one_of_two_values_has_a_difference(chance):
    bound = stats.t.ppf(0.9995, 1)
    got = power.detectable_difference(bound, 2, power=chance, confidence=0.999)
    assert stats.nct.sf(bound, 1, got) == pytest.approx(chance, abs=1e-8)


@pytest.mark.parametrize(("half", "count"), [(1.0, 1), (np.inf, 5), (np.nan, 5)])
def test_without_an_interval_no_difference_is_detectable(half, count):
    assert power.detectable_difference(half, count) == np.inf


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("power", 1.5, r"power must be in \[0.5, 1\), got 1.5"),
        ("confidence", 1.0, r"confidence must be in \(0, 1\), got 1.0"),
    ],
)
def test_probabilities_out_of_range_are_named(name, value, words):
    with pytest.raises(ValueError, match=words):
        power.detectable_difference(1.0, 5, **{name: value})


def test_the_sentence_has_the_difference_and_the_seeds():
    said = power.sentence(0.5, NOT_DECIDED, (-0.5, 1.5), range(10))
    assert said == (
        f"With this noise and 10 seeds, {power.detectable_difference(1.0, 10):.2g} "
        "would be seen with a probability of 80 %."
    )
    assert power.sentence(0.5, DOES_NOT_HOLD, (-0.5, 1.5), range(10)) == said


def test_the_interval_of_a_ratio_gives_a_ratio():
    interval = 1.5 / 4.0, 1.5 * 4.0
    said = power.sentence(1.5, NOT_DECIDED, interval, range(5), is_ratio=True)
    ratio = np.exp(power.detectable_difference(np.log(4.0), 5))
    assert f"a ratio of {ratio:.3g} would be seen" in said
    # A difference may have a skewed interval, too.
    said = power.sentence(1.5, NOT_DECIDED, interval, range(5))
    assert "ratio" not in said


@pytest.mark.parametrize(
    ("measured", "verdict", "interval", "seeds"),
    [
        (0.5, HOLDS, (0.1, 0.9), range(5)),
        (0.5, NOT_DECIDED, None, range(5)),
        (0.5, NOT_DECIDED, (-0.1, 1.1), None),
        (0.5, NOT_DECIDED, (-np.inf, np.inf), range(1)),
        (0.5, NOT_DECIDED, (-np.inf, np.inf), range(5)),
        ("two of three", NOT_DECIDED, (-0.1, 1.1), range(5)),
        (None, NOT_DECIDED, (-0.1, 1.1), range(5)),
    ],
)
def test_where_there_is_nothing_to_say_nothing_is_said(
    measured, verdict, interval, seeds
):
    assert power.sentence(measured, verdict, interval, seeds) == ""


def test_seeds_that_agree_say_nothing_of_the_noise():
    said = power.sentence(0.5, NOT_DECIDED, (0.5, 0.5), range(3))
    assert said == "All seeds agree, which says nothing of the noise."
