"""The symmetric divergence where a class of next to no probability moves far."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from exact_softmax import probabilities

from rdrop import symmetric_kl

pytestmark = pytest.mark.optimized

CASES = [(-5.0, 3.0), (-20.0, 1.5), (-30.0, 3.0), (-30.0, -3.0), (-100.0, 80.0)]
"""Logits of one class, and how far it moves; the others are 1e-4 apart."""


def outputs(logit, change, n=20):
    rng = np.random.default_rng(0)
    a = (3.0 * rng.normal(size=(n, 10))).astype(np.float32)
    b = (a + 1e-4 * rng.normal(size=a.shape)).astype(np.float32)
    a[:, 0], b[:, 0] = logit, logit + change
    return a, b


def exact(a, b):
    """Value, gradient in `a` and its derivative along it, with 50 digits."""
    with mpmath.workdps(50):
        p, q = map(probabilities, (a, b))
        t = [mpmath.log(x / y) for x, y in zip(p, q, strict=True)]
        mean = mpmath.fsum(x * s for x, s in zip(p, t, strict=True))
        value = mpmath.fsum((x - y) * s for x, y, s in zip(p, q, t, strict=True))
        slope = [x * (s - mean) + x - y for x, y, s in zip(p, q, t, strict=True)]
        # Along v the logarithms change by v_i - <p, v>, and so t.
        along = mpmath.fsum(x * v for x, v in zip(p, slope, strict=True))
        moved = [v - along for v in slope]
        d_mean = mpmath.fsum(
            x * m * (s + 1) for x, m, s in zip(p, moved, t, strict=True)
        )
        curvature = [
            x * (m * (s - mean) + m - d_mean + m)
            for x, m, s in zip(p, moved, t, strict=True)
        ]
        return (float(value), *([float(x) for x in z] for z in (slope, curvature)))


def plain(a, b):
    """What other implementations do."""
    log_p, log_q = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    return jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1)


@functools.partial(jax.jit, static_argnames="divergence")
def derivatives(divergence, a, b, direction):
    gradient = jax.grad(lambda a: divergence(a, b).sum())
    return divergence(a, b), *jax.jvp(gradient, (a,), (direction,))


def errors(divergence, a, b, expected):
    """The largest of the values, of the gradients and of their derivatives."""
    direction = np.asarray(expected[1], np.float32)
    value, *rest = map(np.asarray, derivatives(divergence, a, b, direction))
    of_value = np.abs(value / expected[0] - 1.0).max()
    largest = [np.abs(z).max(axis=1, keepdims=True) for z in expected[1:]]
    pairs = zip(rest, expected[1:], largest, strict=True)
    return of_value, *(np.abs((x - y) / scale).max() for x, y, scale in pairs)


@pytest.mark.parametrize(("logit", "change"), CASES)
def test_value_and_derivatives_keep_their_digits_in_float32(logit, change):
    a, b = outputs(logit, change)
    expected = list(map(np.array, zip(*map(exact, a, b), strict=True)))
    # exp(log p) alone has the relative error eps |log p|.
    assert max(errors(symmetric_kl, a, b, expected)) < 3e-6
    control = errors(plain, a, b, expected)
    assert control[1] > 3e-5
    if logit <= -20.0:
        assert min(control[:2]) > 1e-3


def test_masks_leave_the_same_digits():
    a, b = outputs(-20.0, 1.5)
    values, slopes, _ = map(np.array, zip(*map(exact, a, b), strict=True))
    wide = [np.insert(z, 4, np.nan, axis=1) for z in (a, b)]
    where = np.arange(11)[None] != 4
    out = [np.where(where, z, np.float32(-np.inf)) for z in wide]
    for pair, mask in ((wide, where), (out, None)):

        def total(a, b, mask=mask):
            divergence = symmetric_kl(a, b, where=mask)
            return divergence.sum(), divergence

        gradient, got = jax.jit(jax.grad(total, has_aux=True))(*pair)
        np.testing.assert_allclose(got, values, rtol=3e-6)
        gradient = np.asarray(gradient)
        np.testing.assert_array_equal(gradient[:, 4], 0.0)
        largest = np.abs(slopes).max(axis=1, keepdims=True)
        got = np.delete(gradient, 4, axis=1) / largest
        np.testing.assert_allclose(got, slopes / largest, atol=3e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_that_of_its_logits(dtype):
    """Differences of narrow logits are exact in float32."""
    rng = np.random.default_rng(1)
    a = jnp.asarray(3.0 * rng.normal(size=(20, 10)), dtype).at[:, 0].set(-20.0)
    step = a * float(jnp.finfo(dtype).eps) * rng.integers(-1, 2, size=a.shape)
    b = (a + step.astype(dtype)).at[:, 0].set(-17.0)
    wide = [np.asarray(z, np.float32) for z in (a, b)]
    values = np.array([exact(*row)[0] for row in zip(*wide, strict=True)])
    np.testing.assert_allclose(jax.jit(symmetric_kl)(a, b), values, rtol=3e-6)
    assert np.abs(jax.jit(plain)(*wide) / values - 1.0).max() > 1e-5  # the control
