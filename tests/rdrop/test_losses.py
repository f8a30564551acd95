"""The losses: labels, masks, equal passes, extremes, and how they may be called."""

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from expkit import testing
from rdrop import (
    CONVENTIONS,
    consistency_loss,
    rdrop_loss,
    rdrop_regression_loss,
    symmetric_kl,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 6, 4)).astype(np.float32)
LABELS = RNG.integers(4, size=6)
SOFT = softmax(RNG.normal(size=(6, 4)), axis=1).astype(np.float32)
WHERE = np.array([True, False, True, True, False, True])
TOKENS = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
TOKEN_LABELS = RNG.integers(4, size=(3, 5))
TOKEN_MASK = np.arange(5) < np.array([[5], [2], [1]])


def conventions(loss):
    """The loss with two weightings, as one function with several outputs."""

    def losses(*args, **kwargs):
        return [loss(*args, convention=name, **kwargs) for name in ("vit", "fairseq")]

    return losses


# Two conventions have every kind of reduction; test_conventions.py has all.
SUITES = {
    "labels": (rdrop_loss, (*LOGITS, LABELS, 0.7), WHERE),
    "conventions": (conventions(rdrop_loss), (*LOGITS, LABELS, 0.7), WHERE),
    "probabilities": (rdrop_loss, (*LOGITS, SOFT, 0.7), WHERE),
    "tokens": (rdrop_loss, (*TOKENS, TOKEN_LABELS, jnp.float32(0.7)), TOKEN_MASK),
    "regression": (
        rdrop_regression_loss,
        (*LOGITS, SOFT, 0.7),
        WHERE[:, None] | (SOFT > 0.3),
    ),
    "consistency": (consistency_loss, tuple(LOGITS), WHERE),
}


# A mask means something else to each kind of reduction, and over rows.
QUICK = {
    "labels": None,
    "conventions": conformance.MASKS,
    "tokens": conformance.MASKS,
}


@pytest.mark.parametrize(
    "check",
    [
        case
        for suite, (loss, arguments, where) in SUITES.items()
        for case in conformance.cases(
            testing.loss_checks(
                loss,
                arguments,
                argnums=(0, 1),
                kwargs={"where": where},
                mask_name="where",
                second_order=True,
            ),
            suite,
            quick=QUICK.get(suite, ()),
        )
    ],
)
def test_the_losses_conform(check):
    check()


def cross_entropy(logits, labels):
    """Of every example, by scipy in float64."""
    log_p = log_softmax(logits.astype(float), axis=-1)
    return -np.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def divergence(a, b):
    p, q = (softmax(z.astype(float), axis=-1) for z in (a, b))
    return (rel_entr(p, q) + rel_entr(q, p)).sum(axis=-1)


def test_hard_labels_are_soft_labels_with_one_class():
    one_hot = np.eye(4, dtype=np.float32)[LABELS]
    loss = jax.jit(rdrop_loss)
    hard, soft = (loss(*LOGITS, y, 2.0) for y in (LABELS, one_hot))
    np.testing.assert_allclose(hard, soft, rtol=1e-6)


def test_soft_labels_weight_the_logarithms():
    got = rdrop_loss(*LOGITS, SOFT, 2.0)
    terms = [-(SOFT * log_softmax(z.astype(float), axis=1)).sum(axis=1) for z in LOGITS]
    expected = np.mean(sum(terms) + divergence(*LOGITS))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_padding_has_no_part_in_a_sequence_loss():
    got = rdrop_loss(*TOKENS, TOKEN_LABELS, 4.0, where=TOKEN_MASK)
    entropies = sum(cross_entropy(z, TOKEN_LABELS) for z in TOKENS)
    each = entropies + 2.0 * divergence(*TOKENS)
    np.testing.assert_allclose(got, each[TOKEN_MASK].mean(), rtol=1e-6)
    padded = TOKENS.copy()
    padded[:, ~TOKEN_MASK] = np.nan
    labels = np.where(TOKEN_MASK, TOKEN_LABELS, -100)
    np.testing.assert_array_equal(
        rdrop_loss(*padded, labels, 4.0, where=TOKEN_MASK), got
    )


# The constant of each convention times the plain loss, the mean cross-entropy.
CONSTANTS = {
    "paper": 2,
    "readme": 1,
    "hf_bert": 2,
    "vit": 2,
    "fairseq": 2 * 8,
    "bojone": 1,
}


@pytest.mark.optimized
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_equal_passes_leave_exactly_a_multiple_of_the_plain_loss(convention):
    logits = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    labels = np.arange(8) % 4
    picked = jax.nn.log_softmax(logits)[np.arange(8), labels]
    plain = -jnp.sum(picked) / 8
    for alpha in (0.0, 4.0):
        got = rdrop_loss(logits, logits, labels, alpha, convention=convention)
        np.testing.assert_array_equal(got, CONSTANTS[convention] * plain)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_alpha_zero_leaves_the_cross_entropies(convention):
    zero = jax.jit(
        lambda alpha: jax.value_and_grad(
            lambda a, b: rdrop_loss(a, b, LABELS, alpha, convention=convention), (0, 1)
        )(*LOGITS)
    )
    got, gradients = zero(jnp.float32(0.0))
    mean = np.mean(sum(cross_entropy(z, LABELS) for z in LOGITS))
    constant = CONSTANTS[convention] / 2 if convention != "fairseq" else 6
    np.testing.assert_allclose(got, constant * mean, rtol=1e-6)
    for gradient, z in zip(gradients, LOGITS, strict=True):
        expected = softmax(z.astype(float), axis=1) - np.eye(4)[LABELS]
        np.testing.assert_allclose(gradient, constant / 6 * expected, atol=1e-6)


def test_alpha_zero_looks_at_no_divergence():
    a, b = LOGITS.copy()
    a[0, (LABELS[0] + 1) % 4] = -np.inf  # infinitely far away
    assert np.isinf(rdrop_loss(a, b, LABELS, 1.0))
    known = rdrop_loss(a, b, LABELS, 0.0)
    assert np.isfinite(known)
    traced = jax.jit(lambda alpha: rdrop_loss(a, b, LABELS, alpha))
    np.testing.assert_allclose(traced(0.0), known, rtol=1e-6)
    assert np.isinf(traced(1.0))


def test_the_gradient_of_the_divergence_reaches_both_passes():
    def loss(stop):
        def fn(a, b):
            return consistency_loss(stop(a), b)

        return jax.jit(jax.grad(fn, (0, 1)))(*LOGITS)

    first, second = loss(lambda z: z)
    for gradient, pair in ((first, LOGITS), (second, LOGITS[::-1])):
        p, q = (softmax(z.astype(float), axis=1) for z in pair)
        t = np.log(p / q)
        expected = p * (t - (p * t).sum(axis=1, keepdims=True)) + p - q
        np.testing.assert_allclose(gradient, expected / 6, atol=1e-6)
    stopped, other = loss(jax.lax.stop_gradient)
    np.testing.assert_array_equal(stopped, 0.0)
    np.testing.assert_allclose(other, second, atol=1e-7)


def test_the_divergence_is_a_sum_over_classes():
    """A mean over them, as elsewhere, makes alpha weaker by their number."""
    num_classes = 15
    a, b = np.random.default_rng(2).normal(size=(2, 7, num_classes))
    p, q = softmax(a, axis=1), softmax(b, axis=1)
    terms = rel_entr(p, q) + rel_entr(q, p)
    got = jax.jit(consistency_loss)(*(z.astype(np.float32) for z in (a, b)))
    np.testing.assert_allclose(got, terms.sum(axis=1).mean(), rtol=7e-7)
    np.testing.assert_allclose(got / terms.mean(), num_classes, rtol=7e-7)
    assert "not a mean" in symmetric_kl.__doc__


def test_classes_excluded_by_both_passes_have_no_part():
    a, b = LOGITS.copy()
    a[:, 3] = b[:, 3] = -np.inf
    labels = LABELS % 3
    value_and_grad = jax.jit(jax.value_and_grad(rdrop_loss, (0, 1)))
    got, gradients = value_and_grad(a, b, labels, 1.0)
    expected, slopes = value_and_grad(a[:, :3], b[:, :3], labels, 1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient[:, :3], slope, atol=1e-7)
        np.testing.assert_array_equal(gradient[:, 3], 0.0)
    soft = np.where(np.arange(4) < 3, SOFT, 0.0).astype(np.float32)
    value, gradients = value_and_grad(a, b, soft, 1.0)
    testing.assert_tree_finite((value, gradients), "soft labels")


def test_a_traced_label_out_of_range_is_not_silent():
    loss = jax.jit(lambda labels: rdrop_loss(*LOGITS, labels, 1.0))
    for label in (-100, -1, 4, 1000):
        assert np.isnan(loss(LABELS.copy() * 0 + label))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_labels_of_any_width_count_many_classes(dtype):
    logits = np.random.default_rng(4).normal(size=(2, 6, 300)).astype(np.float32)
    loss = jax.jit(lambda y: rdrop_loss(*logits, y, 0.0))
    labels = np.array([0, 127, 3, 44, 2, 5])
    expected = sum(
        optax.softmax_cross_entropy_with_integer_labels(z, labels).mean()
        for z in logits
    )
    np.testing.assert_allclose(loss(labels.astype(dtype)), expected, rtol=1e-6)
    if dtype != "uint8":
        labels[2] = -1  # 300 would be 44 in eight bits
        assert np.isnan(loss(labels.astype(dtype)))


def test_a_traced_probability_of_nan_shows():
    def reference(soft):
        return sum(optax.softmax_cross_entropy(z, soft).mean() for z in LOGITS)

    loss = jax.jit(lambda soft: rdrop_loss(*LOGITS, soft, 0.0))
    for soft in (SOFT, np.where(np.arange(24).reshape(6, 4) == 9, np.nan, SOFT)):
        np.testing.assert_allclose(loss(soft), reference(soft), rtol=1e-6)


def test_the_gradient_in_a_probability_is_right_at_zero_too():
    """A teacher that learns gives probabilities of 0 as well."""
    soft = np.eye(4, dtype=np.float32)[LABELS]
    gradient = jax.grad(lambda soft: rdrop_loss(*LOGITS, soft, 0.0))(soft)
    expected = -sum(log_softmax(z.astype(float), axis=1) for z in LOGITS) / 6
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_gradients_have_the_dtype_of_the_logits():
    for dtype in ("float16", "bfloat16"):
        a, b = (jnp.asarray(z, dtype) for z in LOGITS)
        value, gradients = jax.value_and_grad(rdrop_loss, (0, 1))(a, b, LABELS, 1.0)
        assert value.dtype == jnp.float32
        assert [g.dtype for g in gradients] == [dtype, dtype]


def test_regression_in_the_form_of_the_authors_sts_benchmark():
    f_1, f_2, y = np.random.default_rng(3).normal(size=(3, 9)).astype(np.float32)
    got = rdrop_regression_loss(f_1, f_2, y, 1.0)
    parts = [np.mean((u - v) ** 2) for u, v in ((f_1, y), (f_2, y), (f_1, f_2))]
    np.testing.assert_allclose(got, sum(parts), rtol=1e-6)
    same = rdrop_regression_loss(f_1, f_1, y, 5.0)
    np.testing.assert_array_equal(same, 2.0 * jnp.sum(jnp.square(f_1 - y)) / 9)


@pytest.mark.parametrize("where", [np.ones(6, bool), WHERE])
def test_both_outputs_of_a_regression_are_pulled_together(where):
    f_1, f_2, y = np.random.default_rng(3).normal(size=(3, 6)).astype(np.float32)
    alpha, n = 0.7, where.sum()
    gradients = jax.grad(rdrop_regression_loss, (0, 1))(f_1, f_2, y, alpha, where=where)
    for got, own, other in zip(gradients, (f_1, f_2), (f_2, f_1), strict=True):
        own, other = own.astype(float), other.astype(float)
        expected = np.where(where, 2 * (own - y) + 2 * alpha * (own - other), 0.0) / n
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("place", range(3))
def test_complex_arrays_are_named(place):
    arrays = [np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)) / 3]
    arrays[place] = arrays[place] + 1j
    name = ("outputs_1", "outputs_2", "targets")[place]
    with pytest.raises(TypeError, match=f"{name} must be real, got complex"):
        rdrop_regression_loss(*arrays, 1.0)
    name = ("logits_1", "logits_2", "labels")[place]
    with pytest.raises(TypeError, match=f"{name} must be real, got complex"):
        rdrop_loss(*arrays, 1.0)
