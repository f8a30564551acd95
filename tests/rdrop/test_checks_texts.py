"""Verdicts of the comparisons on texts, from figures that are planted."""

import claim_checks
import jax
import jax.numpy as jnp
import numpy as np
import planted_figures
import pytest
from matplotlib.figure import Figure

from expkit import arms, claims, nets
from expkit import config as config_lib
from expkit import study as study_lib
from rdrop import checks_cost, checks_runs, checks_texts
from rdrop import claims as rdrop_claims


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path, full=True)


@pytest.fixture
def plant(monkeypatch):
    """Sets the accuracy of each arm; the middle setting is the best in validation.

    The first is that of the arms in `at_end`.
    """

    def call(levels, losses=None, ngrams=0.7, at_end=()):
        def figures(study, arm, seed, settings):
            grid = study.grids[arm]
            is_best = planted_figures.is_middle(settings, grid)
            if arm in at_end:
                is_best = all(settings[name] == v[0] for name, v in grid.items())
            level = levels.get(arm, 0.6)
            # Differences between arms vary too: those that do not give no verdict.
            spread = 0.1 * planted_figures.SPREAD[seed] * (2 if "rdrop" in arm else -1)
            return {
                "validation_accuracy": 0.8 if is_best else 0.7,
                "validation_loss": 1.0,
                "test_accuracy": level + spread + 0.1 * (not is_best),
                "test_loss": (losses or {}).get(arm, 1.0) + spread,
            }

        monkeypatch.setattr(study_lib.Study, "figures", figures)
        monkeypatch.setattr(claims.Context, "figure", lambda *args, **options: None)
        monkeypatch.setattr(study_lib.Study, "ngrams", lambda self: np.full(5, ngrams))

    return call


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ({"rdrop": 0.8, "none": 0.7}, claims.HOLDS),
        ({"rdrop": 0.7, "none": 0.8}, claims.DOES_NOT_HOLD),
    ],
)
def test_arms_are_compared_in_the_right_direction(context, plant, levels, verdict):
    plant(levels)
    finding = checks_texts.check_better(context, "docs", "rdrop", "none")
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(levels["rdrop"] - levels["none"])
    assert "learning rate 0.0003, strength 4" in finding.details
    assert "R-Drop {rdrop:.3f}".format(**levels) in finding.details
    assert list(finding.seeds) == [0, 1, 2, 3, 4]


def test_the_figure_says_what_it_shows(context, plant, monkeypatch):
    plant({"rdrop": 0.8, "none": 0.7})
    figures = []
    monkeypatch.setattr(
        claims.Context, "figure", lambda self, *args: figures.append(args)
    )
    checks_texts.check_better(context, "docs", "rdrop", "none")
    ((name, draw, _, alt),) = figures
    assert name == "docs"
    assert "no regulariser 0.700, R-Drop 0.800" in alt
    assert "logistic regression 0.700" in alt
    figure = Figure()
    draw(figure)
    (ax,) = figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [*checks_runs.NAMES.values()]


def test_a_difference_that_changes_its_sign_is_not_decided(context, plant, monkeypatch):
    plant({})
    monkeypatch.setattr(
        study_lib.Study,
        "test",
        lambda self, arm, figure="accuracy": (
            0.7 + (arm == "rdrop") * np.array([0.03, -0.03, 0.02, -0.02, 0.01])
        ),
    )
    finding = checks_texts.check_better(context, "docs", "rdrop", "none")
    assert finding.verdict == claims.NOT_DECIDED
    low, high = finding.interval
    assert low < 0 < high


@pytest.mark.parametrize(("ngrams", "is_said"), [(0.85, True), (0.75, False)])
def test_n_grams_that_win_are_named(context, plant, ngrams, is_said):
    plant({"rdrop": 0.8, "none": 0.7}, ngrams=ngrams)
    details = checks_texts.check_better(context, "docs", "rdrop", "none").details
    assert f"logistic regression {ngrams:.3f}" in details
    assert ("which is more" in details) == is_said


def test_equal_arms_are_as_good_to_a_point(context, plant):
    plant({"semi_rdrop": 0.695, "semi_vat": 0.7})
    arguments = (context, "docs", "semi_rdrop", "semi_vat")
    finding = checks_texts.check_better(*arguments, at_least=-0.01)
    assert finding.verdict == claims.HOLDS
    assert checks_texts.check_better(*arguments).verdict == claims.DOES_NOT_HOLD


@pytest.mark.parametrize(
    ("losses", "baseline", "verdict"),
    [
        ({"rdrop": 0.5, "none": 1.0}, 2.0, claims.HOLDS),
        ({"rdrop": 1.0, "none": 0.5}, 0.7, claims.DOES_NOT_HOLD),
        ({"rdrop": 0.5, "none": 1.0}, 0.4, claims.NOT_DECIDED),
    ],
)
def test_a_regression_is_better_where_its_loss_is_lower(
    context, plant, monkeypatch, losses, baseline, verdict
):
    plant({}, losses)
    monkeypatch.setattr(checks_texts, "cosine_error", lambda config, seed: baseline)
    finding = checks_texts.check_regression(context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(losses["none"] - losses["rdrop"])
    assert f"cosines of TF-IDF {baseline:.4f}" in finding.details
    assert "R-Drop at learning rate 0.0001, strength 4" in finding.details
    is_said = "less than either" in finding.details
    assert is_said == (verdict == claims.NOT_DECIDED)


@pytest.mark.parametrize(
    ("arm", "other", "verdict"),
    [("rdrop", "none", claims.DOES_NOT_HOLD), ("none", "rdrop", claims.HOLDS)],
)
def test_a_regression_that_may_be_better_beyond_its_grid_decides_nothing(
    context, plant, monkeypatch, arm, other, verdict
):
    """Of the arm that loses; where the one that wins may be better still, it wins."""
    monkeypatch.setattr(checks_texts, "cosine_error", lambda config, seed: 2.0)
    losses = {arm: 1.0, other: 0.5}
    plant({}, losses, at_end=[arm])
    finding = checks_texts.check_regression(context)
    assert finding.verdict == claims.NOT_DECIDED
    assert "the lowest tried" in finding.details
    plant({}, losses, at_end=[other])
    assert checks_texts.check_regression(context).verdict == verdict


def test_long_comparisons_are_not_decided_in_quick_mode(tmp_path):
    quick = claims.Context(tmp_path)
    for setting in ("all_docs", "reviews"):
        finding = checks_texts.check_better(quick, setting, "rdrop", "none")
        assert finding.verdict == claims.NOT_DECIDED
        assert "--full" in finding.details
    for check in (
        checks_texts.check_regression,
        checks_texts.check_epochs,
        checks_texts.check_alpha,
    ):
        assert check(quick).verdict == claims.NOT_DECIDED
    assert not list(tmp_path.iterdir())


def test_quick_and_full_mode_try_the_same_middle(context, tmp_path):
    full = checks_runs.study(context, "docs")
    quick = checks_runs.study(claims.Context(tmp_path / "quick"), "docs")
    assert quick.grids.keys() == full.grids.keys() == checks_runs.NAMES.keys()
    for arm, grid in full.grids.items():
        for name, values in grid.items():
            assert list(values) == sorted(values)
            assert quick.grids[arm][name] == (values[len(values) // 2],)
    assert (len(quick.seeds), len(full.seeds)) == (2, 5)
    assert quick.config.num_steps < full.config.num_steps


@pytest.mark.parametrize("setting", checks_runs.SETTINGS)
def test_every_arm_has_as_many_settings_and_the_same_rates(context, setting):
    study = checks_runs.study(context, setting)
    assert {len(study.choices(arm)) for arm in study.grids} == {9}
    for grid in study.grids.values():
        assert set(grid["learning_rate"]) <= set(study.grids["none"]["learning_rate"])


class Memory:
    """A study of which runs are their arguments."""

    beside_baseline, listed = arms.Arms.beside_baseline, arms.Arms.listed

    def __init__(self, context):
        self.context, self.seeds = context, range(3)
        study = checks_runs.study(context, "docs")
        self.config, self.grids = study.config, study.grids
        self.lab = type("Lab", (), {"config": self.config})()

    def tuned(self, arm):
        return {"learning_rate": 5e-4} | ({"strength": 4.0} if arm == "rdrop" else {})

    def run(self, arm, seed, settings):
        return arm, seed, settings

    figures = run


@pytest.mark.parametrize(
    ("power", "verdict"),
    [(-0.5, claims.HOLDS), (0.5, claims.DOES_NOT_HOLD), (0.0, claims.NOT_DECIDED)],
)
def test_the_gap_must_shrink_with_alpha(context, monkeypatch, power, verdict):
    runs = Memory(context)
    wiggles = [0.3, -0.3, 0.3] if not power else [0.0, 0.01, 0.02]
    figures = []
    monkeypatch.setattr(
        claims.Context, "figure", lambda self, *args: figures.append(args)
    )
    monkeypatch.setattr(checks_runs, "study", lambda context, setting: runs)

    def gap(lab, params):
        _, seed, settings = params
        assert settings["learning_rate"] == 5e-4
        return (1 + settings["strength"]) ** (power + wiggles[seed])

    monkeypatch.setattr(checks_texts, "model_gap", gap)
    finding = checks_texts.check_gap(context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(power + np.mean(wiggles))
    ((name, draw, _, _),) = figures
    figure = Figure()
    draw(figure)
    line = figure.axes[0].lines[0]
    assert name == "gap"
    assert list(line.get_xdata()) == sorted(line.get_xdata()) == [0, 1, 4, 16]
    means = [np.mean([(1 + a) ** (power + w) for w in wiggles]) for a in (0, 1, 4, 16)]
    np.testing.assert_allclose(line.get_ydata(), means)


def test_the_gap_of_two_classes_has_a_closed_form(monkeypatch):
    """Logits +-1 by chance: the mean of the probabilities is 1/2, at logit m not."""
    monkeypatch.setattr(checks_texts, "NUM_MASKS", 4096)

    def apply(params, x, key=None):
        sign = 0.0 if key is None else 2.0 * jax.random.bernoulli(key) - 1.0
        logit = params + sign + 0.0 * x["ids"][:, 0]
        return jnp.stack([logit, jnp.zeros_like(logit)], axis=1)

    rows = {"ids": np.ones((3, 2), np.float32)}
    task = type("Task", (), {"net": nets.Net(None, apply), "splits": {"test": rows}})
    lab = type("Lab", (), {"texts": type("Texts", (), {"task": task})})
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    for logit in (0.0, 2.0):
        mean = 0.5 * (sigmoid(logit + 1) + sigmoid(logit - 1))
        # In two classes the total variation distance is the difference of one.
        expected = abs(mean - sigmoid(logit))
        half = 0.5 * (sigmoid(logit + 1) - sigmoid(logit - 1))
        got = checks_texts.model_gap(lab, jnp.float32(logit))
        assert got == pytest.approx(expected, abs=4 * half / np.sqrt(4096))


@pytest.mark.parametrize(
    ("gain", "ngrams", "verdict"),
    [
        (0.1, 0.75, claims.HOLDS),
        (-0.1, 0.6, claims.DOES_NOT_HOLD),
        (0.1, 0.9, claims.NOT_DECIDED),
    ],
)
def test_more_steps_must_gain_r_drop_more(context, monkeypatch, gain, ngrams, verdict):
    runs = Memory(context)
    runs.baseline = lambda figure: ("n-grams", ngrams)
    runs.test = lambda arm: 0.7 + np.array([0.0, 0.01, 0.02])
    runs.lab.evaluate = lambda params, split: {f"{split}_accuracy": params}

    def compile_arm(lab, arm, num_steps):
        assert num_steps == 3 * runs.config.num_steps
        return lambda settings, seed: (
            0.7 + 0.01 * seed + (arm == "rdrop") * (gain + 1e-3 * seed)
        )

    monkeypatch.setattr(checks_runs, "compile_arm", compile_arm)
    monkeypatch.setattr(checks_runs, "study", lambda context, setting: runs)
    finding = checks_texts.check_epochs(context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(gain + 1e-3)
    assert f"n-grams {ngrams:.3f}" in finding.details
    assert finding.details.endswith(
        "Tuned for the 60 steps: R-Drop at learning rate 0.0005, strength 4, no "
        "regulariser at learning rate 0.0005."
    )
    runs.grids = {"rdrop": {"strength": (1.0, 4.0)}, "none": {"learning_rate": (5e-4,)}}
    finding = checks_texts.check_epochs(context)
    assert finding.verdict == verdict
    assert "strength 4, the highest tried, no regulariser at" in finding.details


@pytest.mark.parametrize(
    ("ratio", "spread", "verdict"),
    [
        (2.03, 0.05, claims.HOLDS),
        (1.2, 0.05, claims.DOES_NOT_HOLD),  # too cheap for two passes
        (3.0, 0.05, claims.DOES_NOT_HOLD),
        (2.03, 1.0, claims.NOT_DECIDED),
    ],
)
def test_a_step_costs_about_two_where_its_interval_is_near_two(
    context, monkeypatch, ratio, spread, verdict
):
    rounds = 0.02 * np.ones(30)
    ours = ratio * rounds * np.exp(spread * np.linspace(-1.0, 1.0, 30))
    seconds = {"none": rounds, "rdrop": ours}
    lab = type("Lab", (), {"config": config_lib.load("configs/rdrop/reviews.py:")})
    lab.draw = staticmethod(lambda seed: ({}, {}))
    lab.texts = type("Texts", (), {"task": None})
    lab.initial = staticmethod(lambda seed: {})
    runs = type("Runs", (), {"lab": lab})
    monkeypatch.setattr(checks_runs, "study", lambda context, setting: runs)
    monkeypatch.setattr(checks_cost.finetuning, "make_adamw", lambda config: None)
    monkeypatch.setattr(checks_cost.train, "make_loss", lambda *arguments: None)
    monkeypatch.setattr(checks_cost.loop, "make_step", lambda *arguments: len)
    monkeypatch.setattr(checks_cost.loop, "init_state", lambda *arguments: None)
    monkeypatch.setattr(
        checks_cost.finetuning_runs, "round_seconds", lambda steps, rounds: seconds
    )
    finding = checks_cost.check_cost(context)
    assert finding.measured == pytest.approx(ratio)
    assert finding.verdict == verdict


def test_every_comparison_of_the_claims_has_its_arms():
    seen = claim_checks.keywords(rdrop_claims.EXPERIMENTS, checks_texts.check_better)
    assert seen
    for keywords in seen:
        assert keywords["setting"] in checks_runs.ARMS
        drawn = checks_runs.ARMS[keywords["setting"]]
        assert {keywords["arm"], keywords["rival"]} <= set(drawn)
