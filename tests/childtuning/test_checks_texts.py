"""Verdicts of the comparisons on texts, from figures that are planted."""

import claim_checks
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from childtuning import checks_masks, checks_texts, train
from childtuning import claims as claims_module
from expkit import claims
from expkit import study as study_lib

WIGGLE = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 1.5, -1.5, 0.5, -0.5, 0.0]) / 100
SWAPPED = WIGGLE[[1, 0, 3, 2, 5, 4, 7, 6, 9, 8]]


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path, full=True)


@pytest.fixture
def plant(monkeypatch):
    """Sets the accuracy of each arm over seeds; the last rate is best in validation."""
    asked = []

    def call(levels, ngrams=0.7):
        def figures(study, arm, seed, settings):
            asked.append((arm, settings["learning_rate"]))
            choices = study.choices(arm)
            is_best = settings == choices[len(choices) // 2]
            level = np.broadcast_to(levels.get(arm, 0.7 + WIGGLE), 10)[seed]
            return {
                "validation_accuracy": 0.8 if is_best else 0.7,
                "validation_loss": 1.0,
                "test_accuracy": float(level),
                "test_loss": 1.0,
            }

        monkeypatch.setattr(study_lib.Study, "figures", figures)
        monkeypatch.setattr(claims.Context, "figure", lambda *args, **options: None)
        monkeypatch.setattr(study_lib.Study, "ngrams", lambda self: np.full(10, ngrams))
        return asked

    return call


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.05, claims.HOLDS), (-0.05, claims.DOES_NOT_HOLD)]
)
def test_arms_are_compared_in_the_right_direction(context, plant, gain, verdict):
    plant({"f": 0.7 + gain + 0.5 * WIGGLE})
    finding = checks_texts.check_better(context, "reviews", "f")
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(gain - 0.5 * WIGGLE.mean())
    assert f"ChildTuning-F {0.7 + gain + 0.5 * WIGGLE.mean():.3f}" in finding.details
    assert "(learning rate 0.001)" in finding.details
    assert list(finding.seeds) == list(range(10))


def test_a_gain_within_the_spread_is_not_decided(context, plant):
    plant({"f": 0.7 - WIGGLE})
    finding = checks_texts.check_better(context, "reviews", "f")
    assert finding.verdict == claims.NOT_DECIDED


def test_the_shorter_arm_has_steps_as_long_as_those_of_f(context, plant, monkeypatch):
    asked = plant({})
    study = checks_texts.study(context, "reviews")
    lower = {"f": {"learning_rate": (2e-4, 5e-4, 1e-3)}}
    monkeypatch.setattr(study, "grids", study.grids | lower)
    finding = checks_texts.check_better(context, "reviews", "f", "shorter")
    assert "fine-tuning, lr √p 0.700 (learning rate 0.00027)." in finding.details
    assert "ChildTuning-F is the best of 3 settings" in finding.details
    assert "fine-tuning, lr √p of 1." in finding.details
    assert study.tuned("f") == {"learning_rate": 5e-4}
    assert study.tuned("vanilla") == {"learning_rate": 1e-3}
    assert study.config.reserve_p == 0.3
    rates = {rate for arm, rate in asked if arm == "shorter"}
    assert list(rates) == pytest.approx([5e-4 * np.sqrt(0.3)])
    lion = sorted({rate for arm, rate in asked if arm == "lion"})
    assert lion == pytest.approx(0.2 * np.array(checks_texts.RATES["reviews"]))


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.2, claims.HOLDS), (5.0, claims.DOES_NOT_HOLD)]
)
@pytest.mark.parametrize("arm", ["f", "d_paper"])
def test_spreads_are_compared_in_the_right_direction(
    context, plant, factor, verdict, arm
):
    plant({arm: 0.7 + factor * SWAPPED}, ngrams=0.6)
    finding = checks_texts.check_spread(context, "reviews", arm)
    assert finding.measured == pytest.approx(factor)
    assert finding.verdict == verdict
    spreads = [np.std(x, ddof=1) for x in (factor * SWAPPED, WIGGLE)]
    assert checks_texts.ARMS[arm][0] in finding.details
    assert "{:.4f} and {:.4f}".format(*spreads) in finding.details
    assert "0.700 (learning rate 0.001)" in finding.details
    plant({arm: 0.7 + factor * SWAPPED}, ngrams=0.75)
    beaten = checks_texts.check_spread(context, "reviews", arm)
    assert (beaten.measured, beaten.verdict) == (finding.measured, claims.NOT_DECIDED)
    assert "0.750, which is more, so nothing is decided" in beaten.details


def test_both_forms_have_their_spread_among_the_claims():
    spreads = {
        check.keywords["arm"]
        for rows in claims_module.EXPERIMENTS.values()
        for *_, check in rows
        if getattr(check, "func", None) is checks_texts.check_spread
    }
    assert spreads == {"f", "d_paper"}


def test_spreads_of_the_same_size_are_not_decided(context, plant):
    plant({"d_paper": 0.7 + SWAPPED}, ngrams=0.6)
    finding = checks_texts.check_spread(context, "reviews", "d_paper")
    assert finding.measured == pytest.approx(1.0)
    assert finding.verdict == claims.NOT_DECIDED
    low, high = finding.interval
    assert low < 1 < high


def test_an_arm_without_any_spread_gives_no_verdict(context, plant):
    plant({"vanilla": np.full(10, 0.7)}, ngrams=0.6)
    finding = checks_texts.check_spread(context, "reviews", "d_paper")
    assert finding.verdict == claims.NOT_DECIDED


def test_the_jackknife_covers_the_ratio_of_normal_samples():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        a, b = rng.normal(size=(2, 20)) * [[2.0], [1.0]]
        _, (low, high) = checks_texts._jackknife(a, b)
        covered += low < np.log(2.0) < high
    assert covered > 200 * 0.95 - 4 * np.sqrt(200 * 0.95 * 0.05)


def test_long_comparisons_are_not_decided_in_quick_mode(tmp_path):
    quick = claims.Context(tmp_path)
    for finding in (
        checks_texts.check_better(quick, "api_docs", "f"),
        checks_texts.check_spread(quick, "api_docs", "f"),
    ):
        assert finding.verdict == claims.NOT_DECIDED
        assert "--full" in finding.details
    assert not list(tmp_path.iterdir())


def test_arms_differ_by_their_method_alone(context):
    study = checks_texts.study(context, "reviews")
    lab = type("Lab", (), {"config": study.config})
    plain = checks_texts.arm_config(lab, "vanilla").to_dict()
    changes = {
        arm: {
            name: value
            for name, value in checks_texts.arm_config(lab, arm).to_dict().items()
            if value != plain[name]
        }
        for arm in checks_texts.ARMS
    }
    assert changes == {
        "vanilla": {},
        "shorter": {},
        "f": {"method": "f"},
        "d_paper": {"method": "d"},
        "d_authors": {"method": "d", "fisher": "authors"},
        "update_dropout": {"method": "update_dropout"},
        "rdrop": {"regularizer": "rdrop"},
        "lion": {"optimizer": "lion"},
    }


def test_every_comparison_of_the_claims_has_its_arms():
    seen = claim_checks.keywords(claims_module.EXPERIMENTS, checks_texts.check_better)
    assert {keywords["setting"] for keywords in seen} == set(checks_texts.SETTINGS)
    for keywords in seen:
        compared = {keywords["arm"], keywords.get("rival", "vanilla")}
        assert compared <= set(checks_texts.SETTINGS[keywords["setting"]].arms)


def three_steps(optimizer):
    """Parameters after three steps from -1..1."""
    params = jnp.linspace(-1.0, 1.0, 60).reshape(6, 10)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jnp.sin(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), length=3)[0][0]


@pytest.mark.slow
def test_the_one_program_of_all_arms_steps_as_the_optimizer_of_each(context):
    config = checks_texts.study(context, "reviews").config
    key, whole = jax.random.key(7), jnp.ones((6, 10), bool)
    chosen = whole.at[:2].set(False)
    of_all = jax.jit(
        lambda masks: three_steps(checks_texts.any_method(config, 0.1, **masks))
    )
    none = {"key": key, "gradient_p": 1.0, "update_p": 1.0, "mask": whole}
    results = []
    for method, masks in {
        "none": {},
        "f": {"gradient_p": 0.3},
        "update_dropout": {"update_p": 0.3},
        "d": {"mask": chosen},
    }.items():
        config.method = method
        alone = train.make_optimizer(config, 0.1, mask=chosen, key=key)
        results.append(of_all(none | masks))
        np.testing.assert_allclose(results[-1], three_steps(alone), atol=1e-6)
    for i in range(4):  # the control: methods differ
        for other in results[:i]:
            assert np.abs(results[i] - other).max() > 1e-2


def masks(context, monkeypatch, layers, others=None):
    """Makes `make_mask` give one mask for each arm."""
    study = checks_texts.study(context, "reviews")
    study.lab = type("Lab", (), {"config": study.config})
    study.tuned = lambda arm: {"learning_rate": 0.5}
    study.run = lambda arm, seed, settings: (arm, seed, settings["learning_rate"])

    def make_mask(lab, config, seed, params=None, order=None):
        del lab
        assert params in (None, ("vanilla", seed, 0.5))
        name = config.fisher if order is None else "again"
        of_fisher = layers["paper" if params is None else name]
        layer = of_fisher(seed) if callable(of_fisher) else of_fisher
        return {"encoder": {"layer": layer}, "head": others}

    monkeypatch.setattr(checks_texts, "make_mask", make_mask)


@pytest.mark.parametrize(
    ("shared", "apart", "verdict"),
    [
        (15, 0, claims.HOLDS),
        (15, 10, claims.NOT_DECIDED),  # a repeat shares half, as the other mask does
        (15, 20, claims.NOT_DECIDED),
        (29, 0, claims.DOES_NOT_HOLD),
    ],
)
def test_the_overlap_is_less_than_that_of_a_repeat(
    context, monkeypatch, shared, apart, verdict
):
    places = np.arange(100)

    def mask(least, most):
        return {0: (places[:60] >= least) & (places[:60] < most), 1: places[60:] < 70}

    def authors(seed):  # one entry more or less, so that there is an interval
        return mask(30 - shared - (-1) ** seed, 20)

    layers = {"paper": mask(0, 20), "authors": authors, "again": mask(20, 20 + apart)}
    masks(context, monkeypatch, layers, np.ones(50, bool))
    finding = checks_masks.check_overlap(context)
    assert finding.measured == pytest.approx(shared / 30)
    assert f"too: {shared / 30:.3f} after fine-tuning" in finding.details
    assert "1.000 before it" in finding.details  # the same mask twice
    assert f"less than the {10 / (10 + apart):.3f} of a mask" in finding.details
    assert ("The draw alone" in finding.details) == (apart > 0)
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    ("kept", "others", "verdict"),
    [
        (30, 50, claims.HOLDS),
        (30, 0, claims.DOES_NOT_HOLD),  # everything competes: 30 % is 30 %
        (40, 50, claims.DOES_NOT_HOLD),
    ],
)
def test_the_true_share_counts_what_does_not_compete(
    context, monkeypatch, kept, others, verdict
):
    layer = {0: np.arange(100) < kept}
    layers = {"paper": layer, "authors": layer}
    masks(context, monkeypatch, layers, np.ones(others, bool))
    finding = checks_masks.check_true_share(context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx((kept + others) / (100 + others))
