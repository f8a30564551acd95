"""The checks of perturbations say what they should, also of a broken method."""

import jax
import jax.numpy as jnp
import pytest

import igr
from expkit import claims
from igr import checks_perturbation as checks

HOLD = [
    checks.check_fast_gradient_order,
    checks.check_constant_direction,
    checks.check_noise_order,
    checks.check_power_iteration,
]


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


@pytest.mark.parametrize("check", HOLD, ids=lambda check: check.__name__)
def test_identities_hold(check, context):
    assert check(context).verdict == claims.HOLDS


def sign_perturbation(loss_fn, x, epsilon, *, normalize=True):
    del normalize
    return epsilon * jnp.sign(jax.grad(loss_fn)(x))


def through_direction(loss_fn, x, epsilon, *, normalize=True):
    gradient = jax.grad(loss_fn)(x)
    norm = jnp.sqrt(jnp.sum(gradient**2)) if normalize else 1.0
    return epsilon * gradient / norm


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (checks.check_fast_gradient_order, sign_perturbation),
        (checks.check_constant_direction, sign_perturbation),
        (checks.check_constant_direction, through_direction),
    ],
)
def test_another_perturbation_fails(check, broken, context, monkeypatch):
    monkeypatch.setattr(igr, "fast_gradient_perturbation", broken)
    assert check(context).verdict == claims.DOES_NOT_HOLD


def test_a_random_direction_is_no_eigenvector(context, monkeypatch):
    def random(logits_fn, x, key, *, epsilon, **options):
        del logits_fn, options
        return epsilon * jax.random.normal(key, x.shape)

    monkeypatch.setattr(igr, "virtual_adversarial_perturbation", random)
    assert checks.check_power_iteration(context).verdict == claims.DOES_NOT_HOLD


def test_differences_fail_in_float32_only(context):
    finding = checks.check_finite_difference(context)
    assert finding.verdict == claims.DOES_NOT_HOLD
    assert "In float64 the least is 1.0000; the exact product" in finding.details
    assert finding.details.endswith("has 1.0000 in float32.")
