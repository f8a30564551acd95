"""Verdicts on arms whose runs are planted."""

import ml_collections
import pytest

from expkit import arms, claims

NAMES = {"a": "first", "b": "second"}


class Planted(arms.Arms):
    """Each run has its level, more with the rate 2, and a spread over the seeds."""

    def __init__(self, out, levels, *, baseline=0.0, **options):
        config = ml_collections.ConfigDict({"num_steps": 7})
        grids = {arm: {"rate": (1.0, 2.0, 3.0)} for arm in levels}
        context = claims.Context(out)
        super().__init__(context, config, grids, range(4), **options)
        self.levels, self.level_of_baseline = levels, baseline

    def measure(self, arm, seed, settings):
        value = self.levels[arm] + 0.01 * (seed - 1.5) * (2 if arm == "a" else 1)
        row = {f"{split}_{self.score}": value for split in ("validation", "test")}
        if settings["rate"] != 2.0:
            row[f"validation_{self.score}"] -= 0.1 * settings["rate"]
            row[f"test_{self.score}"] += 0.5  # what tuning must not look at
        return row

    def baseline(self, figure):
        return "a guess", self.level_of_baseline


@pytest.mark.parametrize(
    ("levels", "baseline", "verdict"),
    [
        ({"a": 0.8, "b": 0.6}, 0.5, claims.HOLDS),
        ({"a": 0.6, "b": 0.8}, 0.5, claims.DOES_NOT_HOLD),
        ({"a": 0.7, "b": 0.7}, 0.5, claims.NOT_DECIDED),
        ({"a": 0.8, "b": 0.6}, 0.75, claims.HOLDS),  # one arm beats it
        ({"a": 0.6, "b": 0.8}, 0.75, claims.DOES_NOT_HOLD),
        ({"a": 0.8, "b": 0.6}, 0.9, claims.NOT_DECIDED),
    ],
)
def test_arms_are_compared_where_one_beats_the_baseline(
    tmp_path, levels, baseline, verdict
):
    study = Planted(tmp_path, levels, baseline=baseline)
    finding = study.compare("a", "b", NAMES, at_least=0.0)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(levels["a"] - levels["b"])
    assert f"first {levels['a']:.3f} (rate 2)" in finding.details
    assert f"a guess {baseline:.3f}" in finding.details
    why = "which is more, so nothing is decided"
    assert (why in finding.details) == (baseline == 0.9)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((1.0, 2.0, 3.0), "(rate 2)"),
        ((2.0,), "(rate 2)"),
        ((2.0, 3.0), "(rate 2, the lowest tried)"),
    ],
)
def test_a_setting_at_an_end_of_its_grid_is_named(tmp_path, rates, words):
    study = Planted(tmp_path, {"a": 0.8, "b": 0.6})
    study.grids = {arm: {"rate": rates} for arm in study.grids}
    finding = study.compare("a", "b", NAMES, at_least=0.0)
    assert f"second 0.600 {words}" in finding.details


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ("", claims.HOLDS),
        ("a", claims.HOLDS),  # the winner could only win by more
        ("b", claims.NOT_DECIDED),
        ("ab", claims.NOT_DECIDED),
    ],
)
def test_a_loser_at_an_end_of_its_grid_decides_nothing(tmp_path, ends, verdict):
    study = Planted(tmp_path, {"a": 0.8, "b": 0.6})
    study.grids = {**study.grids, **{arm: {"rate": (1.0, 2.0)} for arm in ends}}
    finding = study.compare("a", "b", NAMES, at_least=0.0)
    assert finding.verdict == verdict
    why = "Beyond its grid an arm may do better, so nothing is decided."
    assert (why in finding.details) == (verdict == claims.NOT_DECIDED)


def test_arms_with_more_settings_than_their_rivals_are_named(tmp_path):
    study = Planted(tmp_path, {"a": 0.8, "b": 0.6})
    words = "first is the best of 6 settings in validation, second of 3."
    finding = study.compare("a", "b", NAMES, at_least=0.0)
    assert "settings" not in finding.details
    study.grids = {**study.grids, "a": {"rate": (1.0, 2.0), "strength": (1, 2, 3)}}
    finding = study.compare("a", "b", NAMES, at_least=0.0)
    assert finding.details.endswith(words)


def test_equal_differences_say_nothing_of_the_noise(tmp_path):
    study = Planted(tmp_path, {"a": 0.75, "b": 0.5})
    study.measure = lambda arm, seed, settings: dict.fromkeys(
        ("validation_accuracy", "test_accuracy"), study.levels[arm]
    )
    finding = study.compare("a", "b", NAMES, at_least=0.0)
    assert finding.verdict == claims.NOT_DECIDED


def test_a_region_has_two_sides(tmp_path):
    study = Planted(tmp_path, {"a": 0.8, "b": 0.6})
    inside = study.compare("a", "b", NAMES, at_least=0.1, at_most=0.3)
    assert inside.verdict == claims.HOLDS
    above = study.compare("a", "b", NAMES, at_least=-0.1, at_most=0.1)
    assert above.verdict == claims.DOES_NOT_HOLD


def test_the_figure_names_every_arm_and_the_baseline(tmp_path, monkeypatch):
    study = Planted(tmp_path, {"a": 0.8, "b": 0.6}, baseline=0.5)
    drawn = []
    monkeypatch.setattr(
        claims.Context, "figure", lambda self, *args: drawn.append(args)
    )
    study.draw("data", NAMES)
    ((name, _, caption, alt),) = drawn
    assert name == "data"
    assert "Test accuracy on data" in caption
    assert alt == "first 0.800, second 0.600; a guess 0.500."
