"""The checks of Lion's claims say what they should on sweeps with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion
from expkit import claims
from lion import (
    checks_batch,
    checks_digits,
    checks_identities,
    checks_noise,
    checks_runs,
    checks_time,
)


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


def images(accuracy, count=3):
    """Hits on images of which none is harder than another."""
    return np.repeat(np.asarray(accuracy)[..., None], count, axis=-1)


def parabola(model, best_rates, best_strength=1):
    """Losses [seeds, rates, strengths] with known minima; optimizer by optimizer."""

    def sweep(context, model_asked, optimizer):
        assert model_asked == model
        rates = checks_digits._rates(model, optimizer)
        strengths = np.arange(len(checks_digits.STRENGTHS))
        losses = [
            0.1
            * np.exp(
                np.log(rates / best)[:, None] ** 2 + (strengths - best_strength) ** 2
            )
            for best in best_rates[optimizer]
        ]
        losses = np.array(losses)
        return {
            "validation_loss": losses,
            "validation_accuracy": 1.0 - 0.1 * losses,
            "test_accuracy": 1.0 - losses,
            "test_hits": images(1.0 - losses),
        }

    return sweep


def test_the_ratio_of_learning_rates_is_found(context, monkeypatch):
    best = {"lion": [0.002, 0.0021, 0.0019], "adamw": [0.01, 0.0105, 0.0095]}
    monkeypatch.setattr(checks_digits, "_sweep", parabola("mlp", best))
    finding = checks_digits.check_learning_rate(context)
    assert finding.measured == pytest.approx(5.0, rel=1e-3)
    best["adamw"] = [0.06, 0.0605, 0.0595]
    finding = checks_digits.check_learning_rate(context)
    assert finding.verdict == claims.DOES_NOT_HOLD


def test_a_best_learning_rate_at_the_end_of_the_grid_leaves_the_verdict_open(
    context, monkeypatch
):
    best = {"lion": [1e-6, 1.1e-6], "adamw": [0.01, 0.0105]}
    monkeypatch.setattr(checks_digits, "_sweep", parabola("mlp", best))
    finding = checks_digits.check_learning_rate(context)
    assert finding.verdict == claims.NOT_DECIDED
    assert "2 of 4 at an end" in finding.details


@pytest.mark.parametrize(("strength", "is_open"), [(0, False), (1, False), (3, True)])
def test_only_the_highest_strength_is_an_end_of_the_grid(strength, is_open):
    assert checks_runs.is_at_end((4, strength), (10, 4)) is is_open
    assert checks_runs.is_at_end((0, strength), (10, 4))


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ([0.01, 0.012, 0.011], claims.HOLDS),
        ([-0.01, -0.012, -0.011], claims.DOES_NOT_HOLD),
        ([-0.01, 0.012, 0.011], claims.NOT_DECIDED),
        ([0.01, 0.01, 0.01], claims.NOT_DECIDED),  # three equal values say nothing
    ],
)
def test_accuracies_are_compared_in_the_right_direction(
    context, monkeypatch, gain, verdict
):
    best = {"lion": [0.002] * 3, "adamw": [0.01] * 3}
    plain = parabola("mlp", best)

    def sweep(context, model, optimizer):
        figures = plain(context, model, optimizer)
        extra = np.array(gain)[:, None, None] * (optimizer == "lion")
        figures["test_accuracy"] = 0.9 + extra + 0 * figures["test_accuracy"]
        figures["test_hits"] = images(figures["test_accuracy"])
        return figures

    monkeypatch.setattr(checks_digits, "_sweep", sweep)
    finding = checks_digits.check_accuracy("mlp", "adamw", context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(np.mean(gain))


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(2, claims.NOT_DECIDED), (20, claims.DOES_NOT_HOLD)]
)
def test_a_difference_of_two_images_is_not_decided_by_any_number_of_seeds(
    context, monkeypatch, wrong, verdict
):
    plain = parabola("mlp", {"lion": [0.002] * 10, "adamw": [0.01] * 10})

    def sweep(context, model, optimizer):
        figures = plain(context, model, optimizer)
        hits = images(np.ones_like(figures["test_accuracy"]), 270)
        if optimizer == "lion":  # all seeds are wrong on them, half on one of their own
            hits[..., :wrong] = 0.0
            for seed, rows in enumerate(hits[:5]):
                rows[..., 100 + seed] = 0.0
        return figures | {"test_accuracy": hits.mean(axis=-1), "test_hits": hits}

    monkeypatch.setattr(checks_digits, "_sweep", sweep)
    finding = checks_digits.check_accuracy("mlp", "adamw", context)
    assert finding.measured == pytest.approx(-(0.5 + wrong) / 270)
    assert finding.verdict == verdict
    assert "the 270 test images" in finding.details


@pytest.mark.parametrize(
    ("cost", "best", "verdict"),
    [
        (0.01, (5, 2), claims.HOLDS),
        (0.05, (5, 2), claims.DOES_NOT_HOLD),
        (0.01, (9, 2), claims.NOT_DECIDED),  # larger rates were not tried
        (0.01, (5, 4), claims.NOT_DECIDED),  # nor stronger decay
    ],
)
def test_settings_off_the_best_are_what_sensitivity_means(
    context, monkeypatch, cost, best, verdict
):
    def sweep(context, model, optimizer):
        # Two steps of the rates are a factor of 4, as one of the strengths: a decay is
        # a strength divided by a rate. A setting is off by one step of either.
        rates = (np.arange(10)[:, None] - best[0]) / 2
        decays = (np.arange(5) - best[1]) - rates
        steps = abs(rates) + abs(decays)
        each = np.array([1.0, 1.1, 0.9])[:, None, None] * steps
        lost = (cost if optimizer == "lion" else 0.03) * each
        accuracy = 0.9 - lost + 0.01 * (optimizer == "lion")
        loss = np.zeros_like(accuracy)
        return {
            "validation_accuracy": accuracy,
            "validation_loss": loss,
            "test_hits": images(accuracy),
        }

    monkeypatch.setattr(checks_digits, "_sweep", sweep)
    finding = checks_digits.check_sensitivity(context)
    assert finding.measured == pytest.approx(cost - 0.03)
    assert finding.verdict == verdict
    assert "4 times the best" in finding.details


def batch_figures(gain, best=2):
    """Figures of a grid whose highest validation accuracy is at `best`.

    The lowest validation loss is at another rate, where Lion is no better than AdamW.
    """

    def figures(context, optimizer, batch_size, *, warmup):
        shape = (3, len(checks_batch.RATES[optimizer]), 1)
        index = np.arange(shape[1])[None, :, None]
        ours = gain(batch_size)[:, None, None] * (index == best)
        return {
            "validation_accuracy": np.broadcast_to(
                0.9 - 0.1 * abs(index - best), shape
            ),
            "validation_loss": np.broadcast_to(1.0 + abs(index - 1), shape),
            "test_accuracy": np.full(shape, np.nan),  # means alone are not enough
            "test_hits": images(0.5 + ours * (optimizer == "lion") + np.zeros(shape)),
        }

    return figures


def rising(batch_size):
    noise = np.array([0.0, 0.001, -0.001])
    return 0.01 * np.log2(batch_size) + noise * (batch_size > 16)


def test_the_gain_by_batch_size_has_the_slope_of_the_figures(context, monkeypatch):
    monkeypatch.setattr(checks_batch, "_figures", batch_figures(rising))
    finding = checks_batch.check_gain_grows(context)
    assert finding.measured == pytest.approx(0.01, abs=1e-4)
    assert finding.verdict == claims.HOLDS


def worse(batch_size):
    return np.array([-0.02, -0.021, -0.019])


@pytest.mark.parametrize(
    ("check", "gain"),
    [
        (checks_batch.check_gain_grows, rising),
        (checks_batch.check_small_batches, worse),
    ],
)
def test_a_batch_whose_best_rate_is_at_an_end_of_the_grid_leaves_the_verdict_open(
    check, gain, context, monkeypatch
):
    monkeypatch.setattr(checks_batch, "_draw", lambda *_: None)
    last = len(checks_batch.RATES["lion"]) - 1
    for best, verdict in ((2, claims.HOLDS), (last, claims.NOT_DECIDED)):
        monkeypatch.setattr(checks_batch, "_figures", batch_figures(gain, best))
        finding = check(context)
        assert finding.verdict == verdict
        assert ("at an end of the grid" in finding.details) is (best == last)


IDENTITIES = [
    checks_identities.check_state_memory,
    checks_identities.check_step_size,
    checks_identities.check_zero_gradient,
    checks_identities.check_weight_bound,
    checks_identities.check_loss_scale,
    checks_noise.check_signum,
    checks_noise.check_sign_agreement,
]


@pytest.mark.parametrize("check", IDENTITIES, ids=lambda check: check.__name__)
def test_identities_hold(check, context):
    assert check(context).verdict == claims.HOLDS


def without_sign(*betas, **options):
    """Lion that forgets the sign."""
    inner = lion.scale_by_lion(*betas, **options)

    def update(updates, state, params=None):
        m = jax.tree.map(lambda g, m: 0.9 * m + 0.1 * g, updates, state.mu)
        _, state = inner.update(updates, state, params)
        return m, state

    return optax.GradientTransformation(inner.init, update)


def broken_lion(learning_rate, *, weight_decay=1e-3, **options):
    return optax.chain(
        without_sign(**options),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


@pytest.mark.parametrize(
    "check",
    [
        checks_identities.check_step_size,
        pytest.param(checks_identities.check_weight_bound, marks=pytest.mark.slow),
    ],
    ids=lambda check: check.__name__,
)
def test_identities_fail_for_a_lion_without_the_sign(check, context, monkeypatch):
    monkeypatch.setattr(lion, "lion", broken_lion)
    assert check(context).verdict == claims.DOES_NOT_HOLD


def test_adam_under_noise_steps_by_the_closed_formula(context):
    finding = checks_noise.check_noise_ratio(context)
    assert finding.measured == pytest.approx(np.sqrt(1.9 / 0.1), rel=0.02)
    assert finding.verdict == claims.DOES_NOT_HOLD


@pytest.mark.parametrize(
    "in_place", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_step_times_are_ratios(context, in_place):
    finding = checks_time.check_step_time(10_000, context, in_place=in_place)
    assert f"in_place={in_place}" in finding.details
    assert 0.0 < finding.measured < 100.0
    assert jnp.isfinite(jnp.array(finding.interval)).all()
