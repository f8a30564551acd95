"""The divergence of sigmoids against scipy and mpmath, and at its singular points."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.special import expit, log_expit, rel_entr

from expkit import testing
from gp_kl import span_divergence

pytestmark = pytest.mark.optimized

RNG = np.random.default_rng(0)
S, T = RNG.normal(size=(2, 3, 2, 4, 4)).astype(np.float32)
WHERE = np.triu(np.ones((4, 4), bool)) & (np.arange(4) < 3)


@functools.partial(jax.jit, static_argnames="reduction")
def evaluate(s, t, where=None, reduction="sum"):
    """Values [batch], and the gradients of their sum."""

    def total(s, t):
        values = span_divergence(s, t, where=where, reduction=reduction)
        return values.sum(), values

    gradients, values = jax.grad(total, (0, 1), has_aux=True)(s, t)
    return values, gradients


divergence = jax.jit(span_divergence)


def coins(s, t):
    """The symmetric Kullback-Leibler divergence of two coins, from probabilities."""
    p, q = expit(s), expit(t)
    forward = rel_entr(p, q) + rel_entr(1 - p, 1 - q)
    return forward + rel_entr(q, p) + rel_entr(1 - q, 1 - p)


@pytest.mark.parametrize("distance", [0.1, 1.0, 5.0])
def test_it_is_the_sum_of_the_divergences_of_coins(distance):
    with jax.enable_x64(True):
        s = RNG.normal(size=(3, 2, 4, 4))
        t = s + distance * RNG.normal(size=s.shape)
        expected = coins(s, t).sum((1, 2, 3))
        np.testing.assert_allclose(divergence(s, t), expected, rtol=1e-10)


def test_it_is_the_symmetrised_bregman_divergence_of_the_softplus():
    with jax.enable_x64(True):
        s, t = S.astype(float), T.astype(float)

        def softplus(z):
            return -log_expit(-z)

        def bregman(a, b):
            return softplus(a) - softplus(b) - expit(b) * (a - b)

        expected = (bregman(s, t) + bregman(t, s)).sum((1, 2, 3))
        np.testing.assert_allclose(divergence(s, t), expected, rtol=1e-12)


def test_the_gradient_is_the_one_of_the_essay_in_both_arguments():
    with jax.enable_x64(True):
        s, t = S.astype(float), T.astype(float)
        _, gradients = evaluate(s, t)
        for a, b, gradient in ((s, t, gradients[0]), (t, s, gradients[1])):
            p, q = expit(a), expit(b)
            expected = p * (1 - p) * (a - b) + p - q
            np.testing.assert_allclose(gradient, expected, atol=1e-13)


def exact(s, t):
    """Value and derivative in s of one cell with 50 digits."""
    with mpmath.workdps(50):
        s, t = mpmath.mpf(float(s)), mpmath.mpf(float(t))
        p, q = (1 / (1 + mpmath.exp(-z)) for z in (s, t))
        return float((p - q) * (s - t)), float(p * (1 - p) * (s - t) + p - q)


def plain(s, t):
    return (jax.nn.sigmoid(s) - jax.nn.sigmoid(t)) * (s - t)


@pytest.mark.parametrize("level", [-30.0, -3.0, 0.0, 3.0, 12.0, 30.0])
@pytest.mark.parametrize("distance", [1e-4, 1e-2, 1.0, 10.0])
def test_close_and_saturated_scores_keep_their_digits_in_float32(level, distance):
    s = (level + RNG.normal(size=(20, 1))).astype(np.float32)
    t = s + (distance * (0.5 + RNG.random(size=s.shape))).astype(np.float32)
    values, slopes = map(np.array, zip(*map(exact, s[:, 0], t[:, 0]), strict=True))
    got, (gradient, _) = evaluate(s, t)
    np.testing.assert_allclose(got, values, rtol=3e-6)
    np.testing.assert_allclose(gradient[:, 0], slopes, rtol=2e-5)
    if distance <= 1e-4 or (level > 10.0 and distance <= 1.0):
        # The control: p - q as it stands.
        assert np.abs(plain(s, t)[:, 0] / values - 1).max() > 1e-4


def test_the_numbers_of_the_essay():
    s, t = np.float32([[1.0], [20.0], [20.0], [40.0]]), np.float32([-1, -20, 10, 30])
    values, (gradient, _) = evaluate(s, t[:, None])
    expected = [2 * np.tanh(0.5), 40.0, 10 * (expit(-10.0) - expit(-20.0)), 9.3572e-13]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient[:3, 0], [0.855328, 1.0, 4.5418e-5], rtol=1e-4)


def test_it_is_zero_if_and_only_if_the_scores_agree():
    for s in (S, 1e4 * np.sign(S)):
        values, gradients = evaluate(s, s)
        np.testing.assert_array_equal(values, 0.0)
        jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), gradients)
    t = S.copy()
    t[:, 0, 0, 0] += 1e-4
    assert (divergence(S, t) > 0).all()
    np.testing.assert_array_equal(divergence(S, t), divergence(t, S))


def test_the_hessian_where_the_scores_agree_is_twice_the_slope_of_the_sigmoid():
    with jax.enable_x64(True):
        s = S[0, 0, 0].astype(float)
        hessian = jax.hessian(lambda z: span_divergence(z[None], s[None])[0])
        p = expit(s)
        expected = np.diag(2 * p * (1 - p))
        np.testing.assert_allclose(jax.jit(hessian)(s), expected, atol=1e-14)


def test_cells_outside_of_the_triangle_are_left_out():
    mask = np.broadcast_to(WHERE, S.shape)
    expected, slopes = evaluate(np.where(mask, S, 0), np.where(mask, T, 0))
    masked = [np.where(mask, z, -np.inf).astype(np.float32) for z in (S, T)]
    garbage = [np.where(mask, z, bad) for z, bad in ((S, np.nan), (T, np.inf))]
    garbage = [z.astype(np.float32) for z in garbage]
    for arguments, options in ((masked, {}), (garbage, {"where": WHERE})):
        values, gradients = evaluate(*arguments, **options)
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        for gradient, slope in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(gradient, slope, atol=1e-7)
    # The control: subtracting first.
    assert np.isnan(plain(*map(jnp.asarray, masked))).any()


def test_the_mean_is_over_the_cells_that_count():
    where = RNG.random(S.shape) < 0.6
    s, t = (np.where(WHERE, z, -np.inf).astype(np.float32) for z in (S, T))
    total = span_divergence(s, t, where=where)
    mean = span_divergence(s, t, where=where, reduction="mean")
    np.testing.assert_allclose(mean, total / (where & WHERE).sum((1, 2, 3)), rtol=1e-6)


def test_an_example_without_cells_has_no_divergence():
    where = np.array([True, False, False])[:, None, None, None]
    nothing = np.full_like(S, -np.inf)
    for reduction in ("sum", "mean"):
        values, gradients = evaluate(S, T, where=where, reduction=reduction)
        assert values[0] > 0
        np.testing.assert_array_equal(values[1:], 0.0)
        jax.tree.map(lambda g: np.testing.assert_array_equal(g[1:], 0.0), gradients)
        values, gradients = evaluate(nothing, nothing, reduction=reduction)
        np.testing.assert_array_equal(values, 0.0)
        jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), gradients)


def test_a_cell_that_one_side_excludes_is_infinitely_far_away():
    s, t = S.copy(), T.copy()
    s[0, 0, 1, 2], t[1, 1, 0, 0] = -np.inf, np.inf
    s[2, 0, 0, 0] = t[2, 0, 0, 0] = np.inf  # equal
    values, gradients = evaluate(s, t)
    assert np.isinf(values).tolist() == [True, True, False]
    rest = np.arange(32) > 0
    expected = coins(*(z[2].ravel()[rest].astype(float) for z in (S, T))).sum()
    np.testing.assert_allclose(values[2], expected, rtol=1e-5)
    testing.assert_tree_finite(gradients, "gradients")
    jax.tree.map(lambda g: np.testing.assert_array_equal(g[:2], 0.0), gradients)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, jnp.float32(2.0)])
def test_a_temperature_divides_the_scores(temperature):
    got = jax.jit(lambda c: span_divergence(S, T, temperature=c))(temperature)
    s, t = (z.astype(float) / float(temperature) for z in (S, T))
    np.testing.assert_allclose(got, coins(s, t).sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_has_float32_values_and_gradients_of_its_own_dtype(dtype):
    s, t = (jnp.asarray(z, dtype) for z in (S, T))
    values, gradients = evaluate(s, t)
    assert values.dtype == jnp.float32
    wide = [z.astype(jnp.float32) for z in (s, t)]
    np.testing.assert_allclose(values, evaluate(*wide)[0], rtol=1e-6)
    assert [g.dtype for g in gradients] == [dtype, dtype]


def test_nan_is_not_hidden():
    s = S.copy()
    s[1, 0, 0, 0] = np.nan
    assert np.isnan(span_divergence(s, T)).tolist() == [False, True, False]


@pytest.mark.parametrize("other", [-np.inf, np.inf, 0.0, np.nan])
def test_nan_is_not_hidden_by_an_infinite_score(other):
    pairs = [[np.nan, 0.0], [other, 0.0]], [[np.nan, 0.0], [0.0, other]]
    for s, t in pairs:
        for a, b in ((s, t), (t, s)):
            value = span_divergence(np.array([a]), np.array([b]))
            assert np.isnan(value).all(), (a, b)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((S, T[:1]), {}, ValueError, "scores_t must have the shape"),
        ((1.0, 2.0), {}, ValueError, r"scores_s must be a batch \[batch, ...\]"),
        ((S, T), {"reduction": "means"}, ValueError, "Did you mean 'mean'"),
        ((S, T), {"temperature": 0.0}, ValueError, "temperature must be .* above 0"),
        ((S, T), {"temperature": -1}, ValueError, "got -1"),
        ((S, T), {"temperature": "1"}, TypeError, "temperature must be a real number"),
        ((S, T), {"where": np.ones(4)}, TypeError, "where must be boolean"),
        ((S, T), {"where": np.ones(3, bool)}, ValueError, "where must broadcast"),
    ],
)
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        span_divergence(*arguments, **options)


def test_complex_scores_are_named():
    real, complex_ = np.zeros((2, 3)), np.zeros((2, 3)) + 1j
    with pytest.raises(TypeError, match="scores_s must be real, got complex"):
        span_divergence(complex_, real)
    with pytest.raises(TypeError, match="scores_t must be real, got complex"):
        span_divergence(real, complex_)
