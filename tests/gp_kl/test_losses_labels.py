"""What the multi-label loss says of integer labels that are neither 0 nor 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gp_kl import multilabel_cross_entropy

SCORES = np.array([[2.0, -1.0, 0.5], [0.3, 1.0, -2.0]], np.float32)
GOOD = np.array([[1, 0, 0], [0, 0, 1]])
FIRST = np.array([[True, True, False]])


def formula(scores, labels):
    """In float64, over the last axis."""
    s, t = scores.astype(float), labels.astype(float)
    return np.log1p((t * np.exp(-s)).sum(-1)) + np.log1p(((1 - t) * np.exp(s)).sum(-1))


def with_label(value, dtype="int64"):
    labels = GOOD.astype(dtype)
    labels[0, 2] = value
    return labels


def eager(labels, where):
    return multilabel_cross_entropy(SCORES, labels, where=where)


def jitted(labels, where):
    loss = jax.jit(lambda s: multilabel_cross_entropy(s, labels, where=where))
    return loss(SCORES)


def differentiated(labels, where):
    def total(s):
        return multilabel_cross_entropy(s, labels, where=where).sum()

    return jax.jit(jax.grad(total))(SCORES)


CALLS = [eager, jitted, differentiated]


@pytest.mark.parametrize("where", [None, ~FIRST, np.ones((2, 3), bool)])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("value", [-100, 2, 2**32, 2**32 + 1])
def test_labels_of_the_host_are_checked_also_inside_of_jit(call, value, where):
    for labels in (with_label(value), with_label(value).tolist()):
        if isinstance(labels, list) and value > 2**31:
            continue  # JAX makes no array of such a list
        message = rf"labels must be in \[0, 1\], got {value}; leave"
        with pytest.raises(ValueError, match=message):
            call(labels, where)


@pytest.mark.parametrize("call", CALLS)
def test_arrays_of_jax_and_soft_labels_are_checked_inside_of_jit(call):
    for labels, shown in ((jnp.asarray(with_label(2)), 2), (1.5 * GOOD, 1.5)):
        with pytest.raises(ValueError, match=f"got {shown};"):
            call(labels, None)


@pytest.mark.parametrize("call", [eager, jitted])
def test_labels_that_do_not_count_may_be_anything(call):
    for value in (-100, 2, 2**32 + 1):
        got = call(with_label(value), FIRST)
        np.testing.assert_allclose(got, formula(SCORES[:, :2], GOOD[:, :2]), rtol=1e-6)


def test_a_probability_that_float32_rounds_to_one_is_one():
    labels = np.where(GOOD == 1, 1.0 + 1e-12, 0.0)
    np.testing.assert_allclose(eager(labels, None), formula(SCORES, GOOD), rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(-100, "int32"), (2, "int32"), (-1, "int8"), (255, "uint8"), (2, "uint32")],
)
@pytest.mark.parametrize("is_masked", [False, True])
def test_a_traced_label_that_is_no_label_shows_where_it_counts(value, dtype, is_masked):
    labels = with_label(value, dtype)
    where = FIRST if is_masked else ~FIRST

    def total(s, labels):
        loss = multilabel_cross_entropy(s, labels, where=where)
        return loss.sum(), loss

    gradient, loss = jax.jit(jax.grad(total, has_aux=True))(SCORES, labels)
    columns = np.flatnonzero(where)
    expected = formula(SCORES[:, columns], GOOD[:, columns])
    assert np.isnan(loss).tolist() == [not is_masked, False]
    np.testing.assert_allclose(loss[1], expected[1], rtol=1e-6)
    assert np.isfinite(gradient).all()
    if is_masked:
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_a_traced_label_over_several_axes_shows_in_its_example_alone():
    scores = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    labels = (scores > 0.8).astype(np.int32)
    labels[1, 1, 2] = 7
    loss = jax.jit(lambda s, t: multilabel_cross_entropy(s, t, axis=(1, 2)))
    got = loss(scores, labels)
    assert np.isnan(got).tolist() == [False, True, False]
    flat = formula(scores.reshape(3, 8), labels.reshape(3, 8))
    np.testing.assert_allclose(got[::2], flat[::2], rtol=1e-6)


def test_a_list_of_traced_labels_works():
    @jax.jit
    def loss(s, label):
        return multilabel_cross_entropy(s, [label, 0, 0])

    np.testing.assert_allclose(loss(SCORES[0], 1), formula(SCORES[0], GOOD[0]), 1e-6)
    assert np.isnan(loss(SCORES[0], 2))
