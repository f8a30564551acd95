"""Verdicts of the comparisons on spans, from figures that are planted."""

import itertools

import numpy as np
import planted_figures
import pytest

from expkit import claims
from gp_kl import checks_runs, checks_texts
from gp_kl import claims as gp_kl_claims

CHECKS = {claim.id: claim.check for claim in gp_kl_claims.CLAIMS}


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path, full=True)


@pytest.fixture
def plant(monkeypatch):
    """Sets the F1 of each arm; the middle settings are the best in validation."""

    def call(levels, baseline=0.3, strengths=None, best_strength=None):
        def figures(study, arm, seed, settings):
            is_best = planted_figures.is_middle(settings, study.grids[arm])
            spread = planted_figures.SPREAD[seed] * (2 if arm == "pointer" else 1)
            level = levels.get(arm, 0.5) + spread
            if strengths is not None and "strength" in settings:
                level += strengths.get(settings["strength"], 0.0)
            if best_strength is not None and "strength" in settings:
                is_best = settings["strength"] == best_strength
            return {
                "validation_f1": 0.8 if is_best else 0.7,
                "test_f1": level,
                "course": [2.0, 1.0, 0.5, 0.4, 0.4],
                "test_f1_unseen": level - 0.2 + planted_figures.SPREAD[::-1][seed],
                **{f"test_f1_{k}": level for k in ("person", "place", "organisation")},
            }

        monkeypatch.setattr(checks_runs.Study, "figures", figures)
        monkeypatch.setattr(
            checks_runs.Study, "baseline", lambda self, figure: ("a list", baseline)
        )
        monkeypatch.setattr(claims.Context, "figure", lambda *args, **options: None)

    return call


def test_a_regularised_arm_has_as_many_settings_and_the_rate_of_the_plain_one(
    context, plant
):
    plant({})
    study = checks_runs.study(context, "few_labels")
    rate = study.tuned("pointer")
    assert rate == {"learning_rate": checks_runs.RATES["few_labels"][1]}
    for arm, (name, values) in checks_runs.FURTHER.items():
        assert study.choices(arm) == [rate | {name: value} for value in values]
        assert len(study.choices(arm)) == len(study.choices("pointer"))


@pytest.mark.parametrize(
    ("claim", "arms", "difference", "verdict"),
    [
        ("as-good-as-crf", ("pointer", "crf"), 0.1, claims.HOLDS),
        ("as-good-as-crf", ("pointer", "crf"), -0.1, claims.DOES_NOT_HOLD),
        ("needs-rotary", ("pointer", "no_rotary"), 0.3, claims.HOLDS),
        ("needs-rotary", ("pointer", "no_rotary"), 0.05, claims.DOES_NOT_HOLD),
        ("rdrop-softmax", ("rdrop_softmax", "rdrop"), -0.1, "not decided"),
        ("vat", ("vat", "pointer"), 0.1, claims.HOLDS),
    ],
)
def test_arms_are_compared_in_the_right_direction(
    context, plant, claim, arms, difference, verdict
):
    plant({arms[0]: 0.5 + difference, arms[1]: 0.5})
    finding = CHECKS[claim](context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(difference)
    assert checks_runs.NAMES[arms[0]] in finding.details


def test_where_a_list_of_names_wins_nothing_is_decided(context, plant):
    plant({"pointer": 0.8, "crf": 0.5}, baseline=0.9)
    finding = CHECKS["as-good-as-crf"](context)
    assert finding.verdict == claims.NOT_DECIDED
    assert "a list 0.900, which is more" in finding.details


def test_the_gain_of_alpha_is_over_two_passes_without_it(context, plant):
    plant({}, strengths={0.3: 0.02, 1.0: 0.05, 3.0: -0.1})
    finding = CHECKS["alpha"](context)
    assert finding.measured == pytest.approx(0.05)
    assert "0.5000 at 0, 0.5200 at 0.3, 0.5500 at 1, 0.4000 at 3" in finding.details


def test_the_test_texts_do_not_choose_alpha(context, plant):
    plant({}, strengths={0.3: 0.02, 1.0: 0.05, 3.0: -0.1}, best_strength=3.0)
    finding = CHECKS["alpha"](context)
    assert finding.measured == pytest.approx(-0.1)
    assert "alpha 3, which validates best" in finding.details


def test_a_gain_of_alpha_below_a_list_of_names_decides_nothing(context, plant):
    plant({}, strengths={1.0: 0.05}, baseline=0.9)
    assert CHECKS["alpha"](context).verdict == claims.NOT_DECIDED


def test_quick_mode_leaves_out_what_takes_long(tmp_path, plant):
    plant({})
    context = claims.Context(tmp_path, full=False)
    for name in ("rdrop", "vat", "alpha", "nested", "nested-efficient"):
        finding = CHECKS[name](context)
        assert finding.verdict == claims.NOT_DECIDED
        assert "--full" in finding.details


def test_a_largest_set_without_overlap_is_found():
    rng = np.random.default_rng(0)
    for _ in range(50):
        spans = set()
        for _ in range(6):
            start = int(rng.integers(0, 12))
            spans.add(("x", start, start + int(rng.integers(0, 5))))
        best = max(
            len(chosen)
            for size in range(len(spans) + 1)
            for chosen in itertools.combinations(spans, size)
            if all(
                a[2] < b[1] or b[2] < a[1] for a, b in itertools.combinations(chosen, 2)
            )
        )
        assert checks_texts.most_apart(spans) == best
