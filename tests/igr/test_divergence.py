"""The divergence of close outputs with all digits, against mpmath and scipy."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from exact_softmax import probabilities
from scipy.special import rel_entr, softmax

from igr.divergence import kl_divergence

pytestmark = pytest.mark.optimized


def exact(a, b):
    """KL(p || q) of one example and its gradient in `b`, q - p, with 50 digits."""
    with mpmath.workdps(50):
        p, q = map(probabilities, (a, b))
        pairs = list(zip(p, q, strict=True))
        value = mpmath.fsum(x * mpmath.log(x / y) for x, y in pairs)
        return float(value), [float(y - x) for x, y in pairs]


def plain(logits_p, logits_q):
    """What other implementations do."""
    log_p, log_q = jax.nn.log_softmax(logits_p), jax.nn.log_softmax(logits_q)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


VALUES = {f: jax.jit(f) for f in (kl_divergence, plain)}
SLOPES = {  # in the second argument
    f: jax.jit(jax.grad(lambda b, a, f=f: f(a, b).sum()))
    for f in (kl_divergence, plain)
}


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("distance", [1e-6, 1e-4, 1e-2, 0.2, 2.0, 10.0])
def test_close_outputs_keep_their_digits_in_float32(distance, scale):
    rng = np.random.default_rng(0)
    a = (scale * rng.normal(size=(20, 10))).astype(np.float32)
    b = (a + distance * rng.normal(size=a.shape)).astype(np.float32)
    values, slopes = map(np.array, zip(*map(exact, a, b), strict=True))
    got = VALUES[kl_divergence](a, b)
    np.testing.assert_allclose(got, values, rtol=2e-6)
    gradient = SLOPES[kl_divergence](b, a)
    largest = np.abs(slopes).max(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient / largest, slopes / largest, atol=3e-6)
    if distance <= 1e-4:  # the negative control
        assert np.abs(VALUES[plain](a, b) / values - 1.0).max() > 0.01


@pytest.mark.parametrize(
    ("logit", "change"), [(-5.0, 3.0), (-20.0, 1.5), (-30.0, 3.0), (-100.0, 80.0)]
)
def test_an_unlikely_class_may_move_far(logit, change):
    rng = np.random.default_rng(2)
    a = (3.0 * rng.normal(size=(20, 10))).astype(np.float32)
    b = (a + 1e-4 * rng.normal(size=a.shape)).astype(np.float32)
    a[:, 0], b[:, 0] = logit, logit + change
    for p, q in ((a, b), (b, a)):
        values, slopes = map(np.array, zip(*map(exact, p, q), strict=True))
        largest = np.abs(slopes).max(axis=1, keepdims=True)
        errors = []
        for divergence in (kl_divergence, plain):
            got, gradient = VALUES[divergence](p, q), SLOPES[divergence](q, p)
            of_slopes = np.abs((gradient - slopes) / largest).max()
            errors.append((np.abs(got / values - 1.0).max(), of_slopes))
        # exp(log p) alone has the relative error eps |log p|.
        assert max(errors[0]) < 3e-6
        assert errors[1][1] > 3e-5  # the negative control
        if logit <= -20.0:
            assert min(errors[1]) > 1e-3


def test_a_class_that_only_the_second_allows_leaves_the_digits_of_the_others():
    rng = np.random.default_rng(5)
    a = (3.0 * rng.normal(size=(20, 10))).astype(np.float32)
    b = (a + 1e-4 * rng.normal(size=a.shape)).astype(np.float32)
    a[:, 0], b[:, 0] = -np.inf, -20.0
    values, slopes = map(np.array, zip(*map(exact_without_first, a, b), strict=True))
    np.testing.assert_allclose(VALUES[kl_divergence](a, b), values, rtol=3e-6)
    gradient = SLOPES[kl_divergence](b, a)
    largest = np.abs(slopes).max(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient / largest, slopes / largest, atol=3e-6)


def exact_without_first(a, b):
    """As `exact`, where p excludes the first class."""
    with mpmath.workdps(50):
        p, q = [mpmath.mpf(0), *probabilities(a[1:])], probabilities(b)
        pairs = list(zip(p, q, strict=True))
        value = mpmath.fsum(x * mpmath.log(x / y) for x, y in pairs[1:])
        return float(value), [float(y - x) for x, y in pairs]


def test_it_is_scipys_in_float64():
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        a = 3.0 * rng.normal(size=(50, 7))
        b = a + np.geomspace(0.01, 30.0, 50)[:, None] * rng.normal(size=a.shape)
        expected = rel_entr(softmax(a, axis=1), softmax(b, axis=1)).sum(axis=1)
        np.testing.assert_allclose(VALUES[kl_divergence](a, b), expected, rtol=1e-11)


def test_second_derivative_is_that_of_log_sum_exp():
    """The Hessian in the second argument: diag q - q q^T."""
    with jax.enable_x64(True):
        a = np.array([[0.5, -1.0, 2.0]])
        dense = jax.jit(jax.hessian(lambda b: kl_divergence(a, b[None])[0]))
        for change in ([0.0, 0.0, 0.0], [0.1, 0.0, 0.2], [3.0, 0.0, -2.0]):
            b = a[0] + np.array(change)
            q = softmax(b)
            np.testing.assert_allclose(
                dense(b), np.diag(q) - np.outer(q, q), rtol=1e-9, atol=1e-12
            )


def test_excluded_classes_and_numbers_that_are_none():
    nan, out = np.nan, -np.inf
    a = np.array([[0, 1, out], [0, 1, out], [0, 1, 2], [0, 1, -200], [0, 1, nan]], "f")
    b = np.array([[0, 1, out], [0, 1, -4], [0, 1, out], [0, 1, -1], [0, 1, 2]], "f")
    p, q = softmax(a[:4], axis=1), softmax(b[:4], axis=1)
    expected = [*rel_entr(p, q).sum(axis=1), nan]
    value = VALUES[kl_divergence]
    np.testing.assert_allclose(value(a, b), expected, rtol=1e-5, atol=1e-12)
    gradient = np.asarray(SLOPES[kl_divergence](b, a))
    rows = [0, 1, 3]  # of the others one is inf, one nan
    np.testing.assert_allclose(gradient[rows, :], (q - p)[rows, :], atol=1e-6)
    assert np.isnan(value(b, a)[4])
    half = jax.eval_shape(kl_divergence, a.astype(jnp.bfloat16), b.astype(jnp.float16))
    assert half.dtype == jnp.float32
