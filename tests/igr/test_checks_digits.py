"""The checks of training runs on digits say what they should on planted figures."""

import numpy as np
import pytest

from expkit import claims
from igr import (
    checks_learning_rate,
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
    several = [0.5, 0.7, 0.9]
    expected = claims.mean_interval(several)
    assert checks_trends.correlation_interval(several) == expected
