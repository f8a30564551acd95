"""Settings and figures of arms whose runs are planted."""

import ml_collections
import numpy as np
import pytest

from expkit import claims, tuning


class Planted(tuning.TunedRuns):
    """Each run has its level, more with the rate 2, and a spread over the seeds."""

    def __init__(self, out, rates=(1.0, 2.0, 3.0), **options):
        config = ml_collections.ConfigDict({"num_steps": 7})
        context = claims.Context(out)
        grids = {"a": {"the_rate": rates}}
        super().__init__(context, config, grids, range(4), **options)
        self.made = []

    def measure(self, arm, seed, settings):
        rate = settings["the_rate"]
        self.made.append((arm, seed, rate))
        value = 0.7 + 0.01 * (seed - 1.5)
        row = {f"{split}_{self.score}": value for split in ("validation", "test")}
        row["course"] = [rate, value]
        if rate != 2.0:
            row[f"validation_{self.score}"] -= 0.1 * rate
            row[f"test_{self.score}"] += 0.5  # what tuning must not look at
        return row


def test_settings_are_those_that_validate_best_on_the_first_seeds(tmp_path):
    study = Planted(tmp_path, score="f1")
    assert study.tuned("a") == {"the_rate": 2.0}
    assert study.made == [("a", 0, r) for r in (1.0, 2.0, 3.0)] + [
        ("a", seed, r) for seed in range(1, tuning.TUNING_SEEDS) for r in (2.0, 1.0)
    ]
    np.testing.assert_allclose(study.test("a", "f1"), [0.685, 0.695, 0.705, 0.715])


def test_a_course_is_that_of_the_tuned_settings(tmp_path):
    courses = Planted(tmp_path).courses("a")
    np.testing.assert_allclose(courses[:, 0], 2.0)
    np.testing.assert_allclose(courses[:, 1], [0.685, 0.695, 0.705, 0.715])


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((1.0, 2.0, 3.0), "the rate 2"),
        ((2.0,), "the rate 2"),
        ((2.0, 3.0), "the rate 2, the lowest tried"),
        ((1.0, 2.0), "the rate 2, the highest tried"),
    ],
)
def test_tuned_settings_are_told_with_the_end_of_the_grid_where_they_are(
    tmp_path, rates, words
):
    study = Planted(tmp_path, rates)
    assert study.listed("a") == words
    assert study.is_at_end("a") == ("tried" in words)


def test_a_loss_is_minimised_where_there_is_no_score(tmp_path):
    study = Planted(tmp_path, score="loss")
    assert study.tuned("a") == {"the_rate": 3.0}
    study.score = "accuracy"
    study.measure = Planted(tmp_path, score="loss").measure
    assert study.tuned("a") == {"the_rate": 3.0}  # the runs have no accuracy


def test_a_run_that_diverged_is_last(tmp_path):
    study = Planted(tmp_path)
    measure = study.measure

    def diverging(arm, seed, settings):
        row = measure(arm, seed, settings)
        is_best = settings["the_rate"] == 2.0
        return row | ({"validation_loss": np.nan} if is_best else {})

    study.measure = diverging
    assert study.tuned("a") == {"the_rate": 1.0}


def test_figures_on_disk_are_not_made_again(tmp_path):
    first = Planted(tmp_path)
    first.test("a")
    again = Planted(tmp_path)
    np.testing.assert_array_equal(again.test("a"), first.test("a"))
    assert again.made == []
    other = Planted(tmp_path)
    other.config.num_steps = 8
    other.test("a")
    assert other.made  # the control


def test_the_second_seed_decides_among_the_best_third_of_the_first(tmp_path):
    """Rate 4 wins by the mean; rate 9, better still, is not among the best three."""
    first = {1.0: 0.50, 2.0: 0.80, 3.0: 0.70, 4.0: 0.75, 5.0: 0.40, 9.0: 0.69}
    first |= {6.0: 0.3, 7.0: 0.2, 8.0: 0.1}
    second = {2.0: 0.60, 3.0: 0.71, 4.0: 0.78, 9.0: 1.0}
    study = Planted(tmp_path, rates=tuple(first))

    def measure(arm, seed, settings):
        study.made.append((seed, settings["the_rate"]))
        value = (first, second)[seed][settings["the_rate"]]
        return {"validation_accuracy": value}

    study.measure = measure
    assert study.tuned("a") == {"the_rate": 4.0}
    assert [rate for seed, rate in study.made if seed == 1] == [2.0, 4.0, 3.0]
