"""Sums over suffixes: those of numpy for every length, and no digits lost."""

import jax
import numpy as np
import pytest

from cosent.suffix_sums import GROUP, suffix_log_sums

pytestmark = pytest.mark.optimized

SIZES = (1, 2, GROUP - 1, GROUP, GROUP + 1, GROUP**2, GROUP**2 + 3, 100)


def expected(x, scale):
    x = x.astype(float)
    smallest = np.minimum.accumulate(x[::-1])[::-1]
    terms = [np.exp(scale * (smallest[k] - x[k:])) for k in range(len(x))]
    return smallest, np.log([term.sum() for term in terms])


@pytest.mark.parametrize("size", SIZES)
def test_every_length_agrees_with_numpy(size):
    x = np.random.default_rng(size).uniform(-1, 1, size).astype(np.float32)
    for scale in (0.1, 20.0, 1e4):
        got = jax.jit(suffix_log_sums)(x, scale)
        smallest, logs = expected(x, scale)
        np.testing.assert_array_equal(got[0], smallest)
        np.testing.assert_allclose(got[1], logs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_sorted_numbers_of_any_range_are_exact(order):
    x = np.linspace(-100.0, 100.0, 70).astype(np.float32)[::order]
    smallest, logs = jax.jit(suffix_log_sums)(x, 1e4)
    np.testing.assert_array_equal(smallest, expected(x, 1e4)[0])
    np.testing.assert_array_equal(logs, 0.0)


def test_the_derivative_is_that_of_the_log_sum():
    """d/dx_i of log sum exp(-scale x) over a suffix is -scale times a softmax."""
    x = np.random.default_rng(0).uniform(-1, 1, 20).astype(np.float32)
    got = jax.jit(jax.jacobian(lambda x: suffix_log_sums(x, 20.0)[1]))(x)
    powers = np.triu(np.exp(-20.0 * np.tile(x.astype(float), (20, 1))))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got, -20.0 * softmax, atol=2e-5)
