"""The checks of mini-batches and flood levels say what they should."""

import numpy as np
import pytest

from expkit import claims
from igr import checks_minibatches

JITTER = np.array([0.0, 0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.25, -0.15, 0.05])
JITTER = JITTER - JITTER.mean()


@pytest.fixture
def context(tmp_path):
    """All ten seeds."""
    return claims.Context(tmp_path, full=True)


def arms(fraction, fall=1.0, noise=0.05, gain=0.0):
    """Figures that fall by a factor, and by a part of it under the penalty."""

    def figures(context, arm):
        part = {"small": 0.0, "large": 1.0, "penalised": fraction}[arm]
        shift = {"small": 0, "large": 3, "penalised": 5}[arm]
        values = 3.0 * np.exp(-fall * part + noise * np.roll(JITTER, shift))
        accuracy = 0.9 + (arm == "penalised") * (gain + 0.01 * JITTER)
        return {"sharpness": values, "batch_squares": values, "test_accuracy": accuracy}

    return figures


RECOVERED = [
    checks_minibatches.check_sharpness_recovered,
    checks_minibatches.check_batch_squares_recovered,
]


@pytest.mark.parametrize("check", RECOVERED, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("fraction", "verdict"),
    [
        (1.0, claims.HOLDS),
        (0.6, claims.HOLDS),
        (0.3, claims.DOES_NOT_HOLD),
        (0.0, claims.DOES_NOT_HOLD),
        (-1.0, claims.DOES_NOT_HOLD),  # a rise
        (1.7, claims.DOES_NOT_HOLD),
        (0.5, claims.NOT_DECIDED),
    ],
)
def test_the_part_of_a_fall_that_a_penalty_brings_is_found(
    context, monkeypatch, check, fraction, verdict
):
    monkeypatch.setattr(checks_minibatches, "_figures", arms(fraction))
    finding = check(context)
    assert finding.measured == pytest.approx(fraction, abs=1e-9)
    assert finding.verdict == verdict
    low, high = finding.interval
    assert low < fraction < high


@pytest.mark.parametrize(("fall", "noise"), [(-1.0, 0.05), (0.02, 0.5), (1.0, 20.0)])
def test_without_a_fall_there_is_nothing_to_recover(context, monkeypatch, fall, noise):
    figures = arms(1.0, fall, noise)
    monkeypatch.setattr(checks_minibatches, "_figures", figures)
    finding = checks_minibatches.check_sharpness_recovered(context)
    assert finding.verdict == claims.NOT_DECIDED


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says(context, monkeypatch):
    rng, covered = np.random.default_rng(0), []

    def figures(context, arm):
        part = {"small": 0.0, "large": 1.0, "penalised": 0.8}[arm]
        return {"sharpness": np.exp(-part + 0.3 * rng.normal(size=10))}

    monkeypatch.setattr(checks_minibatches, "_figures", figures)
    for _ in range(400):
        low, high = checks_minibatches.check_sharpness_recovered(context).interval
        covered.append(low < 0.8 < high)
    assert 0.91 < np.mean(covered) < 0.99


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (0.02, claims.HOLDS),
        (-0.02, claims.DOES_NOT_HOLD),
        (0.0005, claims.NOT_DECIDED),
    ],
)
def test_accuracies_are_compared_in_the_right_direction(
    context, monkeypatch, gain, verdict
):
    monkeypatch.setattr(checks_minibatches, "_figures", arms(1.0, gain=gain))
    finding = checks_minibatches.check_accuracy_recovered(context)
    assert finding.measured == pytest.approx(gain)
    assert finding.verdict == verdict
    assert f"penalised {0.9 + gain:.4f}" in finding.details
