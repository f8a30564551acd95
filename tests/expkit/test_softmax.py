"""Logarithms of ratios of close outputs, against mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from exact_softmax import probabilities

from expkit.softmax import log_ratio

pytestmark = pytest.mark.optimized


def exact(a, b):
    """log p - log q of one example with 50 digits."""
    with mpmath.workdps(50):
        p, q = map(probabilities, (a, b))
        return [float(mpmath.log(x / y)) for x, y in zip(p, q, strict=True)]


def logarithms(a, b, axis=-1):
    log_p, log_q = jax.nn.log_softmax(a, axis), jax.nn.log_softmax(b, axis)
    return a - b, log_p, log_q, np.isfinite(a), axis


@pytest.mark.parametrize("distance", [1e-6, 1e-3, 0.3, 5.0])
def test_ratios_keep_their_digits_in_float32(distance):
    rng = np.random.default_rng(3)
    a = (4.0 * rng.normal(size=(30, 6))).astype(np.float32)
    b = (a + distance * rng.normal(size=a.shape)).astype(np.float32)
    expected = np.array(list(map(exact, a, b)))
    largest = np.abs(expected).max(axis=1, keepdims=True)
    difference, log_p, log_q, is_used, axis = logarithms(a, b)
    got = log_ratio(difference, log_p, log_q, is_used, axis)
    np.testing.assert_allclose(got / largest, expected / largest, atol=2e-6)
    turned = log_ratio(*logarithms(a.T, b.T, axis=0))
    np.testing.assert_array_equal(turned, got.T)
    if distance <= 1e-3:  # the negative control
        assert (np.abs(log_p - log_q - expected) / largest).max() > 2e-5


@pytest.mark.parametrize(
    ("logit", "change"), [(-5.0, 3.0), (-20.0, 1.5), (-30.0, -3.0), (-100.0, 80.0)]
)
@pytest.mark.parametrize("is_masked", [False, True])
def test_an_unlikely_class_that_moves_far_leaves_the_digits_of_the_others(
    logit, change, is_masked
):
    rng = np.random.default_rng(4)
    a = (3.0 * rng.normal(size=(20, 6))).astype(np.float32)
    b = (a + 1e-4 * rng.normal(size=a.shape)).astype(np.float32)
    a[:, 0], b[:, 0] = logit, logit + change
    expected = np.array(list(map(exact, a, b)))
    difference = a - b
    if is_masked:
        difference = np.insert(difference, 3, 0.0, axis=1)
        a, b = (np.insert(z, 3, -np.inf, axis=1) for z in (a, b))
    log_p, log_q = map(jax.nn.log_softmax, (a, b))
    is_used, axis = np.isfinite(a), -1
    got = np.asarray(log_ratio(difference, log_p, log_q, is_used, axis))
    got, log_p, log_q = (
        np.asarray(z)[is_used].reshape(20, 6) for z in (got, log_p, log_q)
    )
    np.testing.assert_allclose(got[:, 0], expected[:, 0], rtol=1e-5)
    largest = np.abs(expected[:, 1:]).max(axis=1, keepdims=True)
    errors = [np.abs((z - expected)[:, 1:]) / largest for z in (got, log_p - log_q)]
    # Both logits, their difference and the sum round once: eps |t| each.
    assert errors[0].max() < 2e-6
    assert errors[1].max() > 1e-4  # the negative control


@pytest.mark.parametrize(("offset", "share"), [(0.9, 0.2), (2.0, 0.5), (7.0, 1.0)])
def test_a_constant_of_one_side_costs_no_more_digits_than_the_subtraction(
    offset, share
):
    rng = np.random.default_rng(4)
    a = (3.0 * rng.normal(size=(20, 6))).astype(np.float32)
    b = (a + 1e-4 * rng.normal(size=a.shape)).astype(np.float32)
    a[:, 0], b[:, 0] = -20.0, -18.5
    b = (b + np.float32(offset)).astype(np.float32)
    expected = np.array(list(map(exact, a, b)))
    log_p, log_q = map(jax.nn.log_softmax, (a, b))
    got = np.asarray(log_ratio(a - b, log_p, log_q, np.isfinite(a), -1))
    largest = np.abs(expected[:, 1:]).max(axis=1, keepdims=True)
    ours, usual = (
        np.mean(np.abs((np.asarray(z) - expected)[:, 1:]) / largest)
        for z in (got, log_p - log_q)
    )
    assert ours < share * usual


def test_the_derivatives_are_those_of_the_difference_of_the_logarithms():
    """Of the first and the second order, in float64, where some classes moved far."""
    with jax.enable_x64(True):
        a = jnp.array([[0.3, -1.0, -6.0, 0.5], [2.0, 0.0, -3.0, -9.0]])
        b = a + jnp.array([[1e-3, -2e-3, 1.5, 0.0], [0.2, 0.1, -4.0, 3.0]])
        weights = jnp.array([[1.0, -2.0, 0.5, 0.7]])

        def total(a, b, ratio):
            log_p, log_q = map(jax.nn.log_softmax, (a, b))
            t = ratio(a - b, log_p, log_q, np.ones(a.shape, bool), -1)
            return jnp.sum(weights * t * t)

        def subtracted(difference, log_p, log_q, is_used, axis):
            return log_p - log_q

        got, expected = (
            [
                jax.jit(order(lambda a, b, r=r: total(a, b, r), (0, 1)))(a, b)
                for order in (jax.grad, jax.hessian)
            ]
            for r in (log_ratio, subtracted)
        )
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-13), got, expected
        )
