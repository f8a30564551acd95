"""Ranks and their correlation: scipy's, also under jit."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cosent import average_ranks, spearman


def tied_case(seed, size=None):
    rng = np.random.default_rng(seed)
    size = rng.integers(2, 60) if size is None else size
    scores = np.round(rng.normal(size=size), 1).astype(np.float32)
    return scores, rng.integers(0, 6, size)


def test_ranks_are_those_of_scipy():
    rank = jax.jit(average_ranks)
    for seed in range(30):
        scores, labels = tied_case(seed, 40)
        for x in (scores, labels, labels > 2):
            np.testing.assert_array_equal(rank(x), stats.rankdata(x))


def test_the_correlation_is_that_of_scipy():
    evaluate = jax.jit(jax.vmap(spearman))
    cases = [tied_case(seed, 30) for seed in range(50)]
    got = evaluate(*(np.array(x) for x in zip(*cases, strict=True)))
    expected = [stats.spearmanr(*c)[0] for c in cases]
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-7)
    for size in (2, 1000):
        scores, labels = tied_case(size, size)
        labels[0] = 9
        expected = stats.spearmanr(scores, labels)[0]
        got = jax.jit(spearman)(scores, labels)
        np.testing.assert_allclose(got, expected, atol=3e-7)


@pytest.mark.slow
def test_a_million_rows_keep_their_digits():
    scores, labels = tied_case(0, 10**6)
    scores = scores + 0.1 * labels
    expected = stats.spearmanr(scores, labels)[0]
    np.testing.assert_allclose(spearman(scores, labels), expected, rtol=1e-5)


def test_the_shortcut_without_ties_is_wrong_for_labels():
    """1 - 6 sum d^2 / (n (n^2 - 1)), as a control."""
    scores, labels = tied_case(3, 50)
    d = stats.rankdata(scores) - stats.rankdata(labels)
    shortcut = 1 - 6 * np.sum(d**2) / (50 * (50**2 - 1))
    assert abs(shortcut - jax.jit(spearman)(scores, labels)) > 1e-3


def test_only_the_order_counts():
    scores, labels = tied_case(5, 50)
    correlate = jax.jit(spearman)
    expected = correlate(scores, labels)
    np.testing.assert_array_equal(correlate(np.exp(scores), labels**3), expected)
    np.testing.assert_allclose(correlate(-scores, labels), -expected, atol=1e-7)
    np.testing.assert_allclose(correlate(scores, scores), 1.0, rtol=3e-7)
    assert abs(correlate(scores, labels**2 % 5) - expected) > 1e-3


def test_undefined_correlations_are_nan_as_in_scipy():
    scores, labels = tied_case(0, 10)
    constant = np.zeros(10, np.float32)
    broken = scores.copy()
    broken[3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for a, b in ((constant, labels), (scores, constant), (broken, labels)):
            assert np.isnan(stats.spearmanr(a, b)[0])
            assert np.isnan(jax.jit(spearman)(a, b))
    assert np.isnan(average_ranks(broken)).all()


def test_numbers_are_compared_in_their_own_dtype():
    close = np.array([0.1 + 0.2, 0.3, 0.0])  # a tie in float32
    np.testing.assert_array_equal(average_ranks(close), [3.0, 2.0, 1.0])
    np.testing.assert_array_equal(average_ranks(2**40 + np.arange(3)), [1, 2, 3])
    narrow = close.astype(np.float32)
    np.testing.assert_array_equal(average_ranks(narrow), [2.5, 2.5, 1.0])
    with jax.enable_x64(True):
        assert average_ranks(close).dtype == jnp.float64
        np.testing.assert_array_equal(average_ranks(close), [3.0, 2.0, 1.0])


def test_half_precision_gives_float32():
    scores = jnp.asarray([0.1, 0.5, 0.3], jnp.bfloat16)
    assert spearman(scores, jnp.arange(3)).dtype == jnp.float32
    np.testing.assert_allclose(spearman(scores, jnp.arange(3)), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: spearman([1.0], [1, 2]), ValueError, r"one shape \[n\]"),
        (lambda: spearman([], []), ValueError, r"n >= 1, got \(0,\)"),
        (lambda: average_ranks([[1.0]]), ValueError, r"x must have .* got \(1, 1\)"),
        (lambda: spearman(["a"], [1]), TypeError, "scores must be real numbers"),
        (lambda: spearman([1.0], [1j]), TypeError, "labels must be real numbers"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
