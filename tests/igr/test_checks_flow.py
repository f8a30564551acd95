"""The checks of the flows hold, and fail where a coefficient is wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from expkit import claims, trees
from igr import (
    checks_accuracy,
    checks_flooding,
    checks_flow,
    checks_orders,
    checks_quadratic,
)

FOLLOWS = checks_flow.check_gradient_descent_follows_the_modified_flow
CHECKS = {
    "near": functools.partial(FOLLOWS, "near"),
    "far": functools.partial(FOLLOWS, "far"),
    "flatter minima": checks_flow.check_flatter_minima,
    "no flow": checks_flow.check_no_flow_beyond_stability,
    "local": checks_orders.check_local_orders,
    "global": checks_orders.check_global_orders,
    "stochastic": checks_orders.check_stochastic_order,
    "momentum": checks_orders.check_momentum_order,
    "flooding": checks_flooding.check_flooding_order,
    "unequal steps": checks_flooding.check_unequal_steps_order,
    "eigenvalue": checks_quadratic.check_quadratic_eigenvalue,
    "oscillation": checks_quadratic.check_oscillation,
}
FIGURES = {
    "near": "trajectories_near",
    "far": "trajectories_far",
    "flatter minima": "flatter_minima",
    "local": "local_errors",
    "stochastic": "epoch_errors",
}


@pytest.fixture
def context(tmp_path, request, monkeypatch):
    rates = checks_accuracy.rates
    if "global" not in request.node.name:  # that counts how often rates are halved
        # An order is that of the two smallest rates.
        few = lambda largest: rates(largest)[-2:]  # noqa: E731
        monkeypatch.setattr(checks_accuracy, "rates", few)
    return claims.Context(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "far"))
        for name in CHECKS  # what is far differs from what is near in numbers alone
    ],
)
def test_checks_hold_and_draw_their_figures(name, context):
    assert CHECKS[name](context).verdict == claims.HOLDS
    drawn = {path.stem for path in context.out.glob("figures/*")}
    wanted = {f"{FIGURES[name]}-{x}" for x in ("light", "dark") if name in FIGURES}
    assert drawn == wanted


def flow_with(coefficient):
    """`modified_flow` with another factor of `h H g`, and the first order right."""
    right = igr.modified_flow

    def wrong(loss_fn, learning_rate, order=2):
        flows = [right(loss_fn, learning_rate, k) for k in (1, order)]

        def flow(params):
            first, full = (f(params) for f in flows)
            product = trees.add_scaled(full, -1.0, first)
            return trees.add_scaled(first, 2 * coefficient, product)

        return flow

    return wrong


@pytest.mark.parametrize(
    "name",
    ["near", "local", pytest.param("global", marks=pytest.mark.slow), "eigenvalue"],
)
def test_checks_fail_for_a_flow_with_twice_or_minus_the_correction(
    name, context, monkeypatch
):
    coefficient = -0.5 if name == "near" else 1.0
    monkeypatch.setattr(igr, "modified_flow", flow_with(coefficient))
    assert CHECKS[name](context).verdict == claims.DOES_NOT_HOLD


def full_batch(loss_fn, learning_rate):
    """The wrong generalisation to batches: the square of the mean gradient."""

    def mean_loss(params, batches):
        return jnp.mean(jax.vmap(lambda batch: loss_fn(params, batch))(batches))

    return igr.modified_loss(mean_loss, learning_rate)


def test_stochastic_check_fails_for_the_norm_of_the_full_batch(context, monkeypatch):
    monkeypatch.setattr(igr, "stochastic_modified_loss", full_batch)
    finding = checks_orders.check_stochastic_order(context)
    assert finding.verdict == claims.DOES_NOT_HOLD
    assert finding.measured == pytest.approx(2.0, abs=0.1)


def test_momentum_check_fails_without_the_factor_of_momentum(context, monkeypatch):
    right = igr.modified_loss

    def wrong(loss_fn, learning_rate, *, momentum=0.0):
        return right(loss_fn, learning_rate / (1 - momentum))

    monkeypatch.setattr(igr, "modified_loss", wrong)
    finding = checks_orders.check_momentum_order(context)
    assert finding.verdict == claims.DOES_NOT_HOLD


def test_flooding_checks_fail_for_half_the_penalty(context, monkeypatch):
    right = igr.with_gradient_penalty

    def wrong(loss_fn, coefficient):
        return right(loss_fn, coefficient / 2)

    monkeypatch.setattr(igr, "with_gradient_penalty", wrong)
    for name in ("flooding", "unequal steps"):
        finding = CHECKS[name](context)
        assert finding.verdict == claims.DOES_NOT_HOLD
        assert finding.measured == pytest.approx(2.0, abs=0.1)


def test_flooding_check_fails_where_the_loss_is_let_below_the_level(
    context, monkeypatch
):
    monkeypatch.setattr(igr, "flood", lambda loss, level: jnp.maximum(loss, level))
    finding = checks_flooding.check_flooding_order(context)
    assert finding.verdict == claims.DOES_NOT_HOLD


def test_flatter_minima_are_compared_with_the_closed_form_of_the_flow():
    for start in checks_flow.STARTS.values():
        times = np.array([0.0, checks_flow.TIME])
        end = checks_flow.flow_path(start, 0.0, 1, times)[-1]
        gap = start[0] ** 2 - start[1] ** 2
        wanted = np.hypot(gap, 2 * checks_flow.DATA[1])
        assert checks_flow.sharpness(end) == pytest.approx(wanted, rel=1e-6)


def test_curvature_is_that_of_the_dense_hessian():
    hessian = jax.jit(jax.hessian(checks_flow.loss_fn))
    with jax.enable_x64(True):
        for start in checks_flow.STARTS.values():
            wanted = np.linalg.eigvalsh(hessian(jnp.array(start)))[-1]
            assert checks_flow._curvature(start) == pytest.approx(wanted, rel=1e-12)


def test_following_a_flow_meets_the_exponential():
    with jax.enable_x64(True):
        end = checks_accuracy.follow(lambda p: -3 * p, [1.0, 2.0], 2.0)
    np.testing.assert_allclose(end, np.exp(-6.0) * np.array([1.0, 2.0]), rtol=1e-11)


def test_orders_are_the_slopes_of_powers():
    steps = checks_accuracy.rates(0.1)
    assert checks_accuracy.order(7 * steps**2.5) == pytest.approx(2.5)


def test_a_control_of_the_right_order_fails_the_finding():
    assert checks_accuracy.finding([3.05], (3,), {"x": (2.0, 2)}).verdict == "holds"
    finding = checks_accuracy.finding([3.0], (3,), {"x": (3.0, 2)})
    assert finding.verdict == claims.DOES_NOT_HOLD
