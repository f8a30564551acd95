"""Logarithms of ratios of close outputs, against mpmath."""

import jax
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
