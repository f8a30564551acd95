"""The loss from indices is the loss from labels, also where subtraction fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import testing
from gp_kl import (
    multilabel_cross_entropy,
    span_indices,
    span_labels,
    sparse_multilabel_cross_entropy,
)

RNG = np.random.default_rng(0)
LOGITS = 3.0 * RNG.normal(size=(5, 8)).astype(np.float32)
INDICES = np.array([[0, 3, -1], [-1, -1, -1], [7, 2, 5], [-5, 1, -1], [6, -1, 6]])
WHERE = RNG.random((5, 8)) < 0.7
LABELS = (np.arange(8)[:, None] == INDICES[:, None]).any(-1)

CHECKS = testing.loss_checks(
    sparse_multilabel_cross_entropy,
    (LOGITS, INDICES),
    kwargs={"where": WHERE},
    mask_name="where",
    masked_argnums=(0,),
    second_order=True,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_loss_conforms(check):
    check()


def compiled(loss, logits, targets, **options):
    """The loss of targets that are known, as one program."""
    return jax.jit(lambda logits: loss(logits, targets, **options))(logits)


def evaluate(loss, logits, targets, where=None):
    def total(logits):
        values = loss(logits, targets, where=where)
        return values.sum(), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(logits)
    return values, gradient


def both(logits, indices, labels, where=None):
    sparse = evaluate(sparse_multilabel_cross_entropy, logits, indices, where)
    dense = evaluate(multilabel_cross_entropy, logits, labels, where)
    return sparse, dense


@pytest.mark.parametrize("scale", [1.0, 10.0, 3000.0])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_it_is_the_loss_of_dense_labels(scale, dtype):
    logits = jnp.asarray(scale * LOGITS / 3.0, dtype)
    sparse, dense = both(logits, INDICES, LABELS)
    np.testing.assert_array_equal(*(x[0] for x in (sparse, dense)))
    for gradient in (sparse[1], dense[1]):
        assert gradient.dtype == dtype
    gradients = [x[1].astype(jnp.float32) for x in (sparse, dense)]
    np.testing.assert_array_equal(*gradients)


def test_a_mask_does_the_same_as_in_the_dense_form():
    for garbage in (np.nan, np.inf, -np.inf, 1e4):
        logits = np.where(WHERE, LOGITS, np.float32(garbage))
        sparse, dense = both(logits, INDICES, LABELS, WHERE)
        np.testing.assert_array_equal(sparse[0], dense[0])
        np.testing.assert_array_equal(sparse[1], dense[1])
        testing.assert_tree_finite(sparse, "sparse")


def subtracted(logits, indices):
    """The form in use: all classes minus the positives, in logarithms."""
    taken = jnp.take_along_axis(logits, jnp.maximum(indices, 0), axis=1)
    taken = jnp.where(indices < 0, -jnp.inf, taken)
    zeros = jnp.zeros_like(logits[:, :1])
    all_loss = jax.nn.logsumexp(jnp.append(logits, zeros, axis=1), axis=1)
    share = jnp.exp(jax.nn.logsumexp(taken, axis=1) - all_loss)
    negative = all_loss + jnp.log1p(-share)
    minus = jnp.where(indices < 0, -jnp.inf, -taken)
    return jax.nn.logsumexp(jnp.append(minus, zeros, axis=1), axis=1) + negative


def test_digits_survive_where_the_positives_dominate():
    logits = np.full((3, 8), -2.0, np.float32)
    logits[:, 0] = [1.0, 10.0, 20.0]
    indices = np.zeros((3, 1), int)
    values, gradient = evaluate(sparse_multilabel_cross_entropy, logits, indices)
    s = logits.astype(float)
    negative = np.exp(s[:, 1:]).sum(1)
    expected = np.log1p(np.exp(-s[:, 0])) + np.log1p(negative)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    slope = np.exp(s[:, 1]) / (1 + negative)
    np.testing.assert_allclose(gradient[:, 1], slope, rtol=1e-5)
    wrong = np.asarray(compiled(subtracted, logits, indices))
    np.testing.assert_allclose(wrong[0], expected[0], rtol=1e-5)
    assert abs(wrong[1] / expected[1] - 1) > 1e-4
    assert not np.isfinite(wrong[2])


def test_cells_of_spans_are_indexed_row_by_row():
    scores = RNG.normal(size=(2, 6, 6)).astype(np.float32)
    spans = [(0, 1, 4), (0, 1, 2), (1, 5, 5), (1, 0, 5), (0, 3, 3)]
    labels, indices = span_labels(spans, 2, 6), span_indices(spans, 2, 6, 4)
    rows = scores.reshape(2, 36)
    sparse = compiled(sparse_multilabel_cross_entropy, rows, indices)
    dense = compiled(multilabel_cross_entropy, scores, labels, axis=(1, 2))
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)


def test_no_indices_are_no_positives():
    empty = np.zeros((5, 0), int)
    sparse, dense = both(LOGITS, empty, np.zeros((5, 8), bool))
    np.testing.assert_array_equal(sparse[0], dense[0])


def test_a_single_row_and_leading_axes_work():
    loss = sparse_multilabel_cross_entropy
    value = compiled(loss, LOGITS[0], INDICES[0])
    stacked = compiled(loss, LOGITS.reshape(5, 1, 8), INDICES.reshape(5, 1, 3))
    assert value.shape == ()
    assert stacked.shape == (5, 1)
    np.testing.assert_allclose(stacked[0, 0], value, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "num_classes"),
    [("uint8", 300), ("int8", 300), ("uint16", 65_536), ("int16", 40_000)],
)
def test_indices_may_be_narrower_than_the_number_of_classes(dtype, num_classes):
    scores = np.random.default_rng(0).normal(size=num_classes).astype(np.float32)
    indices = np.array([5, 100])
    labels = np.isin(np.arange(num_classes), indices)
    got = compiled(sparse_multilabel_cross_entropy, scores, indices.astype(dtype))
    expected = compiled(multilabel_cross_entropy, scores, labels)
    np.testing.assert_allclose(got, expected, rtol=3e-7)


@pytest.mark.parametrize("padding", [-1, -7, np.iinfo(np.int32).min])
def test_any_negative_index_is_padding(padding):
    scores = jnp.array([0.5, -1.0, 2.0, 0.0, 0.1, 1.5])
    indices = jnp.array([padding, 5, 2, padding])
    got = compiled(sparse_multilabel_cross_entropy, scores, indices)
    labels = jnp.array([False, False, True, False, False, True])
    expected = compiled(multilabel_cross_entropy, scores, labels)
    np.testing.assert_allclose(got, expected, rtol=3e-7)


def test_a_large_unsigned_index_is_out_of_range():
    index = jnp.array([2**32 - 1], jnp.uint32)
    assert np.isnan(jax.jit(sparse_multilabel_cross_entropy)(jnp.ones(3), index))


def test_a_traced_index_out_of_range_shows():
    indices = INDICES.copy()
    indices[2, 0] = 8
    values = jax.jit(sparse_multilabel_cross_entropy)(LOGITS, indices)
    assert np.isnan(values).tolist() == [False, False, True, False, False]


ROWS, CLASSES, WIDTH = 8, 1 << 14, 16
FLOATS = 4 * ROWS * CLASSES
"""Bytes of the scores."""


def temporary_bytes(fn, *arguments):
    compiled = jax.jit(fn).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def total(logits, targets):
    loss = multilabel_cross_entropy
    if targets.dtype != bool:
        loss = sparse_multilabel_cross_entropy
    return loss(logits, targets).sum()


def step(kernel, x, targets):
    """A gradient step of which the scores are an intermediate result."""
    return jax.value_and_grad(lambda k: total(x @ k, targets))(kernel)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 10, 2),
    reason="XLA of JAX before 0.10.2 copies what it scatters into",
)
@pytest.mark.optimized
def test_memory_is_that_of_the_positives():
    logits = jnp.zeros((ROWS, CLASSES))
    for k in (4, 32):
        indices = np.full((ROWS, k), -1, np.int32)
        extra = temporary_bytes(jax.grad(total), logits, indices)
        assert extra < 100 * indices.size, extra
        inputs = jnp.zeros((WIDTH, CLASSES)), jnp.zeros((ROWS, WIDTH)), indices
        extra = temporary_bytes(step, *inputs) - FLOATS
        assert extra < 100 * indices.size, extra
    # The control.
    labels = np.zeros((ROWS, CLASSES), bool)
    assert temporary_bytes(jax.grad(total), logits, labels) > 0.9 * FLOATS


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        (INDICES[0], ValueError, r"must be \[..., k\] next to logits of shape"),
        (INDICES[:4], ValueError, r"got shape \(4, 3\)"),
        (INDICES.astype(np.float32), TypeError, "positive_indices must be integers"),
        (INDICES + 1, ValueError, "below the number of classes 8, got 8"),
        # Their lower halves are negative, or a class.
        (INDICES + 2**31, ValueError, f"classes 8, got {2**31 + 7}"),
        (INDICES + 2**32, ValueError, f"classes 8, got {2**32 + 7}"),
    ],
)
def test_bad_input_is_named(indices, error, message):
    with pytest.raises(error, match=message):
        sparse_multilabel_cross_entropy(LOGITS, indices)


def test_a_negative_index_of_64_bits_is_padding():
    far = np.where(INDICES < 0, INDICES - 2**32 + 3, INDICES)  # 2 and -2, if cut to 32
    got = sparse_multilabel_cross_entropy(LOGITS, far)
    want = sparse_multilabel_cross_entropy(LOGITS, INDICES)
    np.testing.assert_array_equal(got, want)
