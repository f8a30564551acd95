"""The checks of training runs on digits say what they should on planted figures."""

import numpy as np
import pytest

from expkit import claims
from igr import (
    checks_descent,
    checks_learning_rate,
    checks_minibatches,
    checks_trends,
)

JITTER = np.array([0.0, 0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.25, -0.15, 0.05])


@pytest.fixture
def context(tmp_path):
    """All ten seeds."""
    return claims.Context(tmp_path, full=True)


FIGURES = ("regularizer", "sharpness", "test_loss", "test_accuracy", "noisy_accuracy")


def swept(slope, broken=()):
    """Figures that change with the rate; two neighbours swap places in odd seeds."""

    def sweep(context, seed):
        values = np.exp(0.1 * slope * np.arange(len(checks_learning_rate.RATES)))
        if seed % 2:
            values[[1, 2]] = values[[2, 1]]
        row = [None if i in broken else value for i, value in enumerate(values)]
        return dict.fromkeys(FIGURES, row)

    return sweep


TRENDS = {
    checks_learning_rate.check_regularizer_falls: -1,
    checks_learning_rate.check_sharpness_falls: -1,
    checks_learning_rate.check_accuracy_rises: 1,
    checks_learning_rate.check_noise_robustness: 1,
}


@pytest.mark.parametrize(("check", "sign"), TRENDS.items())
def test_trends_are_judged_by_their_direction(check, sign, context, monkeypatch):
    monkeypatch.setattr(checks_learning_rate, "_draw", lambda context: None)
    for slope, verdict in (
        (sign, claims.HOLDS),
        (-sign, claims.DOES_NOT_HOLD),
        (0, claims.NOT_DECIDED),
    ):
        monkeypatch.setattr(checks_learning_rate, "_sweep", swept(slope))
        finding = check(context)
        assert finding.verdict == verdict
        # Of 6 ranks, two neighbours in the wrong order in half of the seeds.
        expected = slope * (1.0 - 0.5 * 6 * 2 / (6 * 35))
        assert finding.measured == pytest.approx(expected)
        assert len(finding.seeds) == 10


def test_the_trend_of_the_penalty_is_told_apart_where_no_flow_is_followed(
    context, monkeypatch
):
    """R_IG falls up to the fourth rate, and rises beyond 2 over the sharpness."""
    figures = {name: [7.0, 5.0, 4.0, 3.0, 8.0, 9.0] for name in FIGURES}
    monkeypatch.setattr(checks_learning_rate, "_sweep", lambda *_: figures)
    finding = checks_learning_rate.check_regularizer_falls(context)
    assert finding.measured == pytest.approx(-1.0)
    assert finding.verdict == claims.HOLDS
    assert "0.02 to 0.16 at equal" in finding.details
    assert "with the means 7, 5, 4, 3. Larger rates exceed 2 over" in finding.details
    assert finding.details.endswith("correlation is 0.43, and their means 8, 9.")
    flat = figures | {"sharpness": [0.1] * 6}
    monkeypatch.setattr(checks_learning_rate, "_sweep", lambda *_: flat)
    finding = checks_learning_rate.check_regularizer_falls(context)
    assert finding.measured == pytest.approx(15 / 35)
    assert finding.verdict == claims.NOT_DECIDED
    assert finding.details.endswith("8, 9.")


@pytest.mark.parametrize("broken", [(5,), range(6)])
def test_a_run_that_diverged_leaves_a_trend_open(context, monkeypatch, broken):
    monkeypatch.setattr(checks_learning_rate, "_sweep", swept(-1, broken))
    finding = checks_learning_rate.check_sharpness_falls(context)
    assert finding.verdict == claims.NOT_DECIDED
    assert (context.out / "figures" / "learning_rate-light.svg").is_file()


def test_ten_perfect_orders_decide_and_two_do_not():
    for sign in (-1.0, 1.0):
        mean, (low, high) = checks_trends.correlation_interval([sign] * 10)
        assert mean == sign
        assert max(sign * low, sign * high) == pytest.approx(1.0)
        # 10 of 10: the exact binomial bound is 0.6915.
        assert min(sign * low, sign * high) == pytest.approx(2 * 0.6915 - 1, abs=1e-4)
    assert checks_trends.correlation_interval([1.0] * 2)[1][0] < 0.0
    low, high = checks_trends.correlation_interval([0.0] * 10)[1]
    assert low < 0.0 < high
    assert checks_trends.correlation_interval([0.9, 0.7])[1][1] == 1.0
    assert checks_trends.correlation_interval([0.9, np.nan])[1] == (-np.inf, np.inf)
    several = [0.5, 0.6, 0.7, 0.6]
    expected = claims.mean_interval(several)
    assert checks_trends.correlation_interval(several) == expected


def penalised(center, accuracy=0.9, broken=()):
    """Distances least at `center`, in units of the prediction; one accuracy."""

    def figures(context, seed, predicted, factors=checks_learning_rate.FACTORS):
        place = center * np.exp(0.05 * JITTER[seed])
        distances = np.sqrt(0.01 + (np.array(factors) - place) ** 2)
        distances = [None if i in broken else d for i, d in enumerate(distances)]
        accuracies = [accuracy + 0.01 * JITTER[seed]] * len(factors)
        rows = {"distance": distances, "test_accuracy": accuracies}
        return rows | {"plain_distance": 0.5}

    return figures


@pytest.mark.parametrize(
    ("center", "verdict"),
    [
        (1.0, claims.HOLDS),
        (0.85, claims.HOLDS),
        (1.18, claims.HOLDS),
        (0.7, claims.DOES_NOT_HOLD),
        (1.5, claims.DOES_NOT_HOLD),
        (0.8, claims.NOT_DECIDED),
        (1.25, claims.NOT_DECIDED),
    ],
)
def test_the_penalty_nearest_to_a_larger_rate_is_found_between_the_factors(
    context, monkeypatch, center, verdict
):
    monkeypatch.setattr(checks_learning_rate, "_penalised", penalised(center))
    finding = checks_learning_rate.check_penalty_coefficient(context)
    assert finding.measured == pytest.approx(center * np.exp(0.05 * JITTER.mean()))
    assert finding.verdict == verdict
    low, high = finding.interval
    assert low < center < high


@pytest.mark.parametrize("broken", [(4,), range(5)])
def test_penalties_that_diverge_are_no_minimum(context, monkeypatch, broken):
    figures = penalised(1.0, broken=broken)
    monkeypatch.setattr(checks_learning_rate, "_penalised", figures)
    finding = checks_learning_rate.check_penalty_coefficient(context)
    is_known = len(broken) == 1
    assert finding.verdict == (claims.HOLDS if is_known else claims.NOT_DECIDED)
    assert ("nan" in finding.details) is not is_known


def test_a_target_that_diverged_leaves_the_coefficient_open(context, monkeypatch):
    figures = penalised(1.0, broken=range(5))

    def without_target(*arguments):
        return figures(*arguments) | {"plain_distance": None}

    monkeypatch.setattr(checks_learning_rate, "_penalised", without_target)
    finding = checks_learning_rate.check_penalty_coefficient(context)
    assert finding.verdict == claims.NOT_DECIDED


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (0.05, claims.HOLDS),
        (-0.05, claims.DOES_NOT_HOLD),
        (0.001, claims.NOT_DECIDED),
    ],
)
def test_the_predicted_penalty_is_compared_in_the_right_direction(
    context, monkeypatch, gain, verdict
):
    plain = {"test_accuracy": [0.1] * 5 + [0.5]}
    figures = penalised(1.0, accuracy=0.5 + gain)
    monkeypatch.setattr(checks_learning_rate, "_penalised", figures)
    monkeypatch.setattr(checks_learning_rate, "_sweep", lambda *_: plain)
    finding = checks_learning_rate.check_penalty_recovers(context)
    assert finding.measured == pytest.approx(gain + 0.01 * JITTER.mean())
    assert finding.verdict == verdict
    assert " and 0.5000. " in finding.details


class PlantedRuns:
    """Stands in for `checks_descent.Runs`: the end is where settings put it."""

    def __init__(self, reference, time):
        self._regularizer, self._time = reference.rpartition("=")[2], time

    def params(self, seed, rate, strength=0.0):
        """A penalty of half the prediction makes up for the rate."""
        pull = 8.0 * strength if self._regularizer == "parameter_penalty" else 0.0
        return np.array([rate + pull, seed, self._time])

    def figures(self, seed, rate, strength=0.0, *, curvature=True):
        figures = {"test_accuracy": 0.01 * rate + strength, "seed": seed}
        return figures | ({"sharpness": 1.0 / rate} if curvature else {})


@pytest.fixture
def planted_runs(monkeypatch):
    monkeypatch.setattr(checks_descent, "runs", PlantedRuns)


@pytest.mark.usefixtures("planted_runs")
def test_penalised_runs_are_compared_with_plain_ones_at_the_larger_rate(
    context, monkeypatch
):
    figures = checks_learning_rate._penalised(context, 3, 0.03)
    assert figures["seed"] == [3] * 5
    assert figures["plain_distance"] == pytest.approx(0.12)
    # 0.04 + 8 * factor * 0.03 against 0.16
    expected = [0.06, 0.0, 0.12, 0.36, 0.84]
    assert figures["distance"] == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr(checks_learning_rate, "SMALL", 0.02)
    moved = checks_learning_rate._penalised(context, 3, 0.035)  # not the kept one
    assert moved["plain_distance"] == pytest.approx(0.14)


@pytest.mark.usefixtures("planted_runs")
def test_a_sweep_has_one_figure_a_rate(context):
    figures = checks_learning_rate._sweep(context, 2)
    assert figures["sharpness"] == pytest.approx(1.0 / checks_learning_rate.RATES)
    assert figures["seed"] == [2] * 6


@pytest.mark.usefixtures("planted_runs")
def test_the_arms_with_batches_have_their_rates_and_penalties(context):
    for arm, accuracy in (
        ("small", 0.01 * 0.02),
        ("large", 0.01 * 0.16),
        ("penalised", 0.01 * 0.02 + 0.14 / 4),
    ):
        figures = checks_minibatches._figures(context, arm)
        assert figures["test_accuracy"] == pytest.approx([accuracy] * 10)
        np.testing.assert_array_equal(figures["seed"], np.arange(10))
