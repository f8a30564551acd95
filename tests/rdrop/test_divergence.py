"""The symmetric divergence against scipy and mpmath, and at its singular points."""

import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from exact_softmax import probabilities
from scipy.special import rel_entr, softmax
from scipy.stats import entropy

from expkit import testing
from rdrop import symmetric_kl

pytestmark = pytest.mark.optimized


def outputs(num_classes=10, distance=1.0, scale=1.0, dtype=np.float32, n=20):
    rng = np.random.default_rng(num_classes)
    a = scale * rng.normal(size=(n, num_classes))
    return a.astype(dtype), (a + distance * rng.normal(size=a.shape)).astype(dtype)


# Each shape is a program: tests share that of `outputs` where they can.
@jax.jit
def value_and_gradients(a, b, where=None):
    """Values [...], and the gradients of their sum."""

    def total(a, b):
        values = symmetric_kl(a, b, where=where)
        return values.sum(), values

    gradients, values = jax.grad(total, (0, 1), has_aux=True)(a, b)
    return values, gradients


@pytest.mark.parametrize("distance", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_it_is_the_sum_of_scipys_two_divergences(num_classes, distance):
    with jax.enable_x64(True):
        a, b = outputs(num_classes, distance, dtype=np.float64)
        p, q = softmax(a, axis=1), softmax(b, axis=1)
        got = jax.jit(symmetric_kl)(a, b)
        expected = rel_entr(p, q).sum(axis=1) + rel_entr(q, p).sum(axis=1)
        np.testing.assert_allclose(got, expected, rtol=1e-10)
        expected = entropy(p, q, axis=1) + entropy(q, p, axis=1)
        np.testing.assert_allclose(got, expected, rtol=1e-10)


def exact(a, b):
    """Value and gradient in `a` of one example with 50 digits."""
    with mpmath.workdps(50):
        p, q = map(probabilities, (a, b))
        t = [mpmath.log(x / y) for x, y in zip(p, q, strict=True)]
        value = sum((x - y) * s for x, y, s in zip(p, q, t, strict=True))
        mean = sum(x * s for x, s in zip(p, t, strict=True))
        gradient = [x * (s - mean) + x - y for x, y, s in zip(p, q, t, strict=True)]
        return float(value), [float(x) for x in gradient]


def two_divergences(a, b):
    """What other implementations do."""
    log_p, log_q = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    return jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1)


@jax.jit
@jax.value_and_grad
def plain_sum_and_gradient(a, b):
    return two_divergences(a, b).sum()


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("distance", [1e-5, 1e-4, 1e-2, 1.0, 5.0])
def test_close_distributions_keep_their_digits_in_float32(distance, scale):
    a, b = outputs(distance=distance, scale=scale)
    values, slopes = map(np.array, zip(*map(exact, a, b), strict=True))
    got, (gradient, _) = value_and_gradients(a, b)
    np.testing.assert_allclose(got, values, rtol=2e-6)
    largest = np.abs(slopes).max(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient / largest, slopes / largest, atol=3e-6)
    if distance <= 1e-4:
        plain, slope = plain_sum_and_gradient(a, b)
        assert abs(plain / values.sum() - 1.0) > 1e-5
        assert np.abs((slope - slopes) / largest).max() > 1e-3


def test_the_plain_form_loses_the_digits_that_the_readme_says():
    """Ten classes, logits of standard deviation 5 that differ by 1e-4."""
    a, b = outputs(distance=1e-4, scale=5.0)
    values, slopes = map(np.array, zip(*map(exact, a, b), strict=True))
    largest = np.abs(slopes).max(axis=1, keepdims=True)

    def worst(value, gradient):
        error = np.abs((gradient - slopes) / largest).max()
        return np.abs(value / values - 1.0).max(), error

    plain, slope = jax.vmap(jax.value_and_grad(two_divergences))(a, b)
    assert min(worst(plain, slope)) > 5e-3
    got, (gradient, _) = value_and_gradients(a, b)
    assert max(worst(got, gradient)) < 1e-6


def test_equal_logits_give_exactly_zero_and_no_gradient():
    a, _ = outputs()
    for same in (a, 100.0 * a, np.full_like(a, 1e4), 1e4 * np.sign(a)):
        values, gradients = value_and_gradients(same, same)
        np.testing.assert_array_equal(values, 0.0)
        jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), gradients)


def test_it_is_positive_and_symmetric_where_the_distributions_differ():
    a, b = outputs(distance=1e-6)
    b[:, 0] += 1e-2
    divergence = jax.jit(symmetric_kl)
    assert (divergence(a, b) > 0).all()
    np.testing.assert_allclose(divergence(a, b), divergence(b, a), rtol=1e-5)
    shifted = divergence(a + np.float32(3.0), a)  # the same distribution
    np.testing.assert_allclose(shifted, 0.0, atol=1e-11)


def test_the_gradient_reaches_both_outputs():
    with jax.enable_x64(True):
        a, b = outputs(dtype=np.float64)
        _, gradients = value_and_gradients(a, b)
        for z, other, gradient in ((a, b, gradients[0]), (b, a, gradients[1])):
            p, q = softmax(z, axis=1), softmax(other, axis=1)
            t = np.log(p / q)
            mean = np.sum(p * t, axis=1, keepdims=True)
            np.testing.assert_allclose(gradient, p * (t - mean) + p - q, atol=1e-12)


def test_the_hessian_where_the_distributions_agree_is_twice_the_fisher_matrix():
    with jax.enable_x64(True):
        a = outputs(dtype=np.float64, n=1)[0][0]
        p = softmax(a)
        hessian = jax.jit(jax.hessian(symmetric_kl))
        got = hessian(jnp.asarray(a), jnp.asarray(a))
        np.testing.assert_allclose(got, 2 * (np.diag(p) - np.outer(p, p)), atol=1e-12)


def test_excluded_classes_change_nothing():
    a, b = outputs()
    allowed = np.arange(10) % 3 > 0
    expected, slopes = value_and_gradients(a[:, allowed], b[:, allowed])
    masked = [np.where(allowed, z, -np.inf).astype(np.float32) for z in (a, b)]
    garbage = [np.where(allowed, z, np.nan).astype(np.float32) for z in (a, b)]
    for arguments in (masked, [*garbage, allowed[None]]):
        got, gradients = value_and_gradients(*arguments)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        for gradient, slope in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(gradient[:, allowed], slope, atol=1e-6)
            np.testing.assert_array_equal(gradient[:, ~allowed], 0.0)


def test_a_class_that_one_output_excludes_is_infinitely_far_away():
    a, b = outputs()
    a[0, 2] = b[1, 3] = -np.inf
    values, gradients = value_and_gradients(a, b)
    p, q = softmax(a.astype(float), axis=1), softmax(b.astype(float), axis=1)
    expected = (rel_entr(p, q) + rel_entr(q, p)).sum(axis=1)
    assert np.isinf(expected).tolist() == [True, True] + [False] * 18
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[:2], 0.0)
        assert (np.asarray(gradient)[2:] != 0).all()


def test_an_example_without_classes_has_no_divergence():
    a, b = outputs()
    where = np.arange(20)[:, None] != 1
    values, gradients = value_and_gradients(a, b, where)
    p, q = softmax(a.astype(float), axis=1), softmax(b.astype(float), axis=1)
    expected = np.sum(rel_entr(p, q) + rel_entr(q, p), axis=1) * where[:, 0]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert values[1] == 0.0
    jax.tree.map(lambda g: np.testing.assert_array_equal(g[1], 0.0), gradients)
    nothing = np.full_like(a, -np.inf)
    values, gradients = value_and_gradients(nothing, nothing)
    np.testing.assert_array_equal(values, 0.0)
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), gradients)


def test_nan_is_not_hidden():
    a, b = outputs()
    a[1, 0] = np.nan
    values, _ = value_and_gradients(a, b)
    assert np.flatnonzero(np.isnan(values)).tolist() == [1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_has_float32_values_and_gradients_of_its_own_dtype(dtype):
    a, b = outputs()
    a[0] = np.where(np.arange(10) == 0, -1e4, 1e4)
    b[0] = -a[0]
    a, b = (jnp.asarray(z, dtype) for z in (a, b))
    values, gradients = value_and_gradients(a, b)
    assert values.dtype == jnp.float32
    testing.assert_tree_finite((values, gradients), dtype)
    wide = [z.astype(jnp.float32) for z in (a, b)]
    expected, slopes = value_and_gradients(*wide)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert gradient.dtype == dtype
        error = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(gradient.astype("float32"), slope, error, error)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_the_classes_may_lie_on_any_axis(axis):
    a, b = (z.reshape(4, 10, 5) for z in outputs(n=20))
    got = jax.jit(lambda a, b: symmetric_kl(a, b, axis=axis))(a, b)
    p, q = (softmax(z.astype(float), axis=axis) for z in (a, b))
    expected = (rel_entr(p, q) + rel_entr(q, p)).sum(axis=axis)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "where", "error", "message"),
    [
        ((np.ones((2, 3)), np.ones((1, 3))), None, ValueError, "must have one shape"),
        ((np.ones(()), np.ones(())), None, ValueError, "must have an axis of classes"),
        ((np.ones(3), np.ones(3)), np.ones(3), TypeError, "where must be boolean"),
    ],
)
def test_bad_input_is_named(arguments, where, error, message):
    with pytest.raises(error, match=message):
        symmetric_kl(*arguments, where=where)


@pytest.mark.parametrize(
    "wrap", [pytest.param(lambda f: f, marks=pytest.mark.slow), jax.jit]
)
def test_without_any_class_the_divergence_and_its_gradient_are_zero(wrap):
    a, b = np.float32([1.0, 2.0, np.nan]), np.float32([-1.0, np.inf, 5.0])
    where = np.zeros(3, bool)
    both = wrap(
        jax.value_and_grad(lambda a, b: symmetric_kl(a, b, where=where), (0, 1))
    )
    value, gradients = both(a, b)
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(gradients, 0.0)


@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 2, 3)])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_a_mask_of_another_shape_is_named_with_both_shapes(wrap, shape):
    message = f"where must broadcast to the shape (2, 3), got {shape}."
    with pytest.raises(ValueError, match=re.escape(message)):
        wrap(symmetric_kl)(np.ones((2, 3)), np.ones((2, 3)), where=np.ones(shape, bool))


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 1), (2, 3)])
def test_a_mask_may_broadcast_to_the_logits(shape):
    a, b = (z.reshape(2, 3) for z in outputs(3, n=2))
    where = np.ones(shape, bool)
    np.testing.assert_array_equal(symmetric_kl(a, b, where=where), symmetric_kl(a, b))
