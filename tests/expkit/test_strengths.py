"""The gain of a strength over 0, from figures that are planted."""

import ml_collections
import numpy as np
import pytest

from expkit import arms, claims, strengths

STRENGTHS = (0.0, 1.0, 2.0)
TEST = np.array([[0.5, 0.7, 0.9], [0.5, 0.71, 0.9], [0.5, 0.69, 0.9]])


class Planted(arms.Arms):
    """The strength 1 validates best, though 2 has the best test figures.

    The arm itself is best at the learning rate 0.1, and with the strength 0 at 0.2.
    """

    rates = (0.05, 0.1, 0.2)

    def __init__(self, out, baseline, of_test=TEST):
        grids = {"a": {"learning_rate": self.rates, "strength": (1.0,)}}
        config = ml_collections.ConfigDict({})
        super().__init__(claims.Context(out), config, grids, range(3), score="f1")
        self.level, self.of_test = baseline, of_test

    def measure(self, arm, seed, settings):
        index = STRENGTHS.index(settings["strength"])
        if settings["learning_rate"] != (0.1 if index else 0.2):
            return {"validation_f1": 0.1, "test_f1": 0.1}
        validation = (0.9, 0.8, 0.7)[index]
        return {"validation_f1": validation, "test_f1": self.of_test[seed, index]}

    def baseline(self, figure):
        return "a list", self.level


@pytest.mark.parametrize(
    ("baseline", "verdict"), [(0.4, claims.HOLDS), (0.8, claims.NOT_DECIDED)]
)
def test_the_strength_that_validates_best_is_compared_with_none(
    tmp_path, baseline, verdict
):
    study = Planted(tmp_path, baseline)
    finding, test = strengths.against_zero(
        study, "a", STRENGTHS, "f1", rates=(0.05, 0.1, 0.2, 0.4), listed=str
    )
    assert finding.measured == pytest.approx(0.2)
    assert finding.verdict == verdict
    assert "test F1 of alpha 1, which validates best" in finding.details
    assert "with learning rates 0.1 and 0.2" in finding.details
    assert str(TEST.mean(axis=0)) in finding.details
    # Three rates with the strength 1, one of them also with 2, and four with 0.
    assert "Alpha 0 is the best of 4 settings in validation, the other of 4." in (
        finding.details
    )
    assert "end of its grid" not in finding.details
    np.testing.assert_array_equal(test, TEST)


@pytest.mark.parametrize(
    ("of_test", "verdict"),
    [(TEST, claims.HOLDS), (1.2 - TEST, claims.DOES_NOT_HOLD)],
)
def test_a_baseline_between_the_two_leaves_the_verdict(tmp_path, of_test, verdict):
    """One has 0.7 and the other 0.5, so the evidence is that of the better."""
    study = Planted(tmp_path, 0.65, of_test)
    options = {"rates": (0.05, 0.1, 0.2, 0.4), "listed": str}
    finding, _ = strengths.against_zero(study, "a", STRENGTHS, "f1", **options)
    assert finding.verdict == verdict
    assert "a list 0.650." in finding.details


def test_a_rival_at_an_end_of_its_grid_leaves_a_gain_open(tmp_path):
    finding, _ = strengths.against_zero(
        Planted(tmp_path, 0.6), "a", STRENGTHS, "f1", rates=(0.1, 0.2), listed=str
    )
    assert finding.measured == pytest.approx(0.2)
    assert finding.verdict == claims.NOT_DECIDED
    assert finding.details.endswith("One of the two is at an end of its grid.")
