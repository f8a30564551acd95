"""Accuracy against alpha, from figures that are planted, and the baseline of pairs."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from expkit import claims, data
from expkit import config as config_lib
from expkit import study as study_lib
from rdrop import checks_texts

WIGGLE = np.array([-2.0, 0.0, 1.0, 2.0, -1.0]) / 1000


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Runs the check on accuracies by alpha; returns the finding and the figures."""

    def call(validation, test, ngrams):
        def figures(study, arm, seed, settings):
            assert arm == "rdrop"
            alpha = settings["strength"]
            accuracy = validation.get(alpha, 0.0)
            if alpha == 0.0 and settings["learning_rate"] != 3e-4:
                accuracy -= 0.1
            return {
                "validation_accuracy": accuracy,
                "test_accuracy": test.get(alpha, 0.0) + alpha * WIGGLE[seed],
            }

        drawn = []
        monkeypatch.setattr(study_lib.Study, "figures", figures)
        monkeypatch.setattr(study_lib.Study, "ngrams", lambda self: np.full(5, ngrams))
        monkeypatch.setattr(
            study_lib.Study, "tuned", lambda self, arm: {"learning_rate": 3e-4}
        )
        monkeypatch.setattr(
            claims.Context, "figure", lambda self, *args: drawn.append(args)
        )
        context = claims.Context(tmp_path, full=True)
        return checks_texts.check_alpha(context), drawn

    return call


@pytest.mark.parametrize(
    ("test", "ngrams", "verdict"),
    [
        ({0: 0.70, 1: 0.72, 4: 0.75, 16: 0.80}, 0.74, claims.HOLDS),
        ({0: 0.80, 1: 0.85, 4: 0.75, 16: 0.90}, 0.74, claims.DOES_NOT_HOLD),
        ({0: 0.70, 1: 0.72, 4: 0.75, 16: 0.80}, 0.76, claims.NOT_DECIDED),
        ({0: 0.750, 1: 0.90, 4: 0.751, 16: 0.90}, 0.74, claims.NOT_DECIDED),
    ],
)
def test_the_alpha_that_validates_best_is_compared_with_alpha_0(
    sweep, test, ngrams, verdict
):
    finding, _ = sweep({0: 0.9, 1: 0.6, 4: 0.8, 16: 0.7}, test, ngrams)
    assert finding.measured == pytest.approx(test[4] - test[0])
    assert finding.verdict == verdict
    assert "alpha 4, which validates best" in finding.details
    assert f"{test[16]:.3f} at alpha 16" in finding.details
    assert f"logistic regression {ngrams:.3f}" in finding.details
    assert ("which is more" in finding.details) == (ngrams == 0.76)
    assert list(finding.seeds) == [0, 1, 2, 3, 4]


def test_a_run_that_diverged_is_not_the_best_and_leaves_no_verdict(sweep):
    validation = {0: 0.9, 1: 0.6, 4: 0.8, 16: None}
    finding, _ = sweep(validation, {0: 0.7, 4: 0.8, 16: 0.9}, 0.5)
    assert "alpha 4, which validates best" in finding.details
    finding, _ = sweep(validation, {0: np.nan, 4: 0.8}, 0.5)
    assert finding.verdict == claims.NOT_DECIDED


def test_the_sweep_is_drawn_with_the_baseline_beside_it(sweep):
    test = {0: 0.70, 1: 0.72, 4: 0.75, 16: 0.80}
    _, ((name, draw, _, alt),) = sweep({4: 0.8}, test, 0.74)
    assert name == "alpha"
    assert "0.700 at alpha 0, 0.720 at alpha 1" in alt
    figure = Figure()
    draw(figure)
    ours, baseline = figure.axes[0].lines
    np.testing.assert_allclose(ours.get_xdata(), list(test))
    np.testing.assert_allclose(ours.get_ydata(), list(test.values()))
    np.testing.assert_allclose(baseline.get_ydata(), 0.74)


def test_the_baseline_of_pairs_is_least_squares_on_their_cosines(
    repository_root, monkeypatch
):
    """Equal texts score 2, those without a common word 0, in the training pairs."""
    same, other = "red green blue", "one two three"
    rows = {
        "text_1": np.array([same, other, same, other]),
        "text_2": np.array([same, other, other, same]),
        "score": np.array([2.0, 2.0, 0.0, 0.0]),
    }
    wrong = rows | {"score": np.array([2.0, 1.0, 0.0, 0.5])}
    splits = {"train": rows, "validation": rows, "test": wrong}
    monkeypatch.setattr(data, "load_splits", lambda config: splits)
    path = f"{repository_root}/configs/rdrop/api_docs_pairs.py:num_labels=0"
    got = checks_texts.cosine_error(config_lib.load(path), seed=0)
    assert got == pytest.approx((1.0 + 0.25) / 4)
