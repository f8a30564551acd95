"""Spans from scores and back, and F1 against its definition and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from gp_kl import (
    SpanCounts,
    decode_spans,
    score_counts,
    span_counts,
    span_f1,
    span_indices,
    span_labels,
)

RNG = np.random.default_rng(0)
NESTED = [(0, 0, 4), (0, 1, 2), (0, 2, 3), (1, 1, 2), (2, 4, 4)]


def random_spans(n=6, types=3, seed=0):
    """Sets of spans of 20 sentences, some of them empty."""
    rng = np.random.default_rng(seed)
    cells = [(a, i, j) for a in range(types) for i in range(n) for j in range(i, n)]
    return [{c for c in cells if rng.random() < 0.1 * (k % 4)} for k in range(20)]


def test_every_cell_above_the_threshold_is_a_span():
    scores = RNG.normal(size=(3, 5, 5))
    for threshold in (-np.inf, -0.5, 0.0, 0.7, np.inf):
        expected = [
            (a, i, j)
            for a in range(3)
            for i in range(5)
            for j in range(i, 5)
            if scores[a, i, j] > threshold
        ]
        assert decode_spans(scores, threshold) == expected
    assert all(type(x) is int for span in decode_spans(scores) for x in span)


def test_nested_and_overlapping_spans_survive():
    labels = span_labels(NESTED, 3, 5)
    assert labels.sum() == len(NESTED)
    assert decode_spans(np.where(labels, 2.0, -np.inf)) == sorted(NESTED)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_arrays_of_jax_decode_in_every_dtype(dtype):
    scores = jnp.asarray(np.where(span_labels(NESTED, 3, 5), 2.0, -1e4), dtype)
    assert decode_spans(scores) == sorted(NESTED)


def test_a_score_of_exactly_the_threshold_is_no_span():
    scores = np.zeros((1, 2, 2))
    assert decode_spans(scores) == []
    assert decode_spans(scores, -1e-9) == [(0, 0, 0), (0, 0, 1), (0, 1, 1)]
    # Also next to a threshold that float32 would round the score to.
    assert decode_spans(np.full((1, 1, 1), 1 + 1e-12), 1.0) == [(0, 0, 0)]


def test_nothing_gives_no_spans():
    assert decode_spans(np.full((2, 3, 3), -np.inf)) == []
    assert decode_spans(np.zeros((2, 0, 0))) == []
    assert decode_spans(np.zeros((0, 3, 3))) == []


def flags(sets, n=6, types=3):
    return np.stack([span_labels(s, types, n) for s in sets])


def test_f1_is_that_of_scikit_learn_on_all_cells():
    predicted, gold = random_spans(seed=0), random_spans(seed=1)
    predicted = [p | set(list(g)[:1]) for p, g in zip(predicted, gold, strict=True)]
    found, true = flags(predicted).ravel(), flags(gold).ravel()
    assert span_f1(predicted, gold) == pytest.approx(f1_score(true, found), rel=1e-12)
    counts = np.array(list(span_counts(predicted, gold).values()))
    total = SpanCounts(*counts.sum(0).tolist())
    assert total.precision == pytest.approx(precision_score(true, found))
    assert total.recall == pytest.approx(recall_score(true, found))


def test_counts_are_by_type():
    predicted, gold = random_spans(seed=0), random_spans(seed=1)
    counts = span_counts(predicted, gold)
    assert sorted(counts) == [0, 1, 2]
    for kind, got in counts.items():
        found, true = (flags(sets)[:, kind].ravel() for sets in (predicted, gold))
        assert got == ((found & true).sum(), found.sum(), true.sum())
        assert got.f1 == pytest.approx(f1_score(true, found))


def test_types_may_have_names_and_repeats_count_once():
    predicted = [[("person", 0, 1), ["person", 0, 1], ("place", 3, 3)], []]
    gold = [{("person", 0, 1)}, {("place", 0, 0)}]
    assert span_f1(predicted, gold) == 0.5
    assert span_counts(predicted, gold) == {"person": (1, 1, 1), "place": (0, 1, 1)}


def test_a_span_is_right_only_as_a_whole():
    gold = [{(0, 1, 3)}]
    assert span_f1(gold, gold) == 1.0
    for wrong in ((1, 1, 3), (0, 0, 3), (0, 1, 2), (0, 1, 4)):
        assert span_f1([{wrong}], gold) == 0.0
    # The same span in another sentence is another span.
    assert span_f1([{(0, 1, 3)}, set()], [set(), {(0, 1, 3)}]) == 0.0


def test_emptiness_is_defined():
    some = [{(0, 0, 0)}]
    assert span_f1([], []) == 1.0
    assert span_f1([set()], [set()]) == 1.0
    assert span_f1([set()], some) == 0.0
    assert span_f1(some, [set()]) == 0.0
    nothing = SpanCounts(0, 0, 0)
    assert (nothing.f1, nothing.precision, nothing.recall) == (1.0, 1.0, 1.0)
    arrays = SpanCounts(*jnp.array([[0, 1, 0], [0, 2, 0], [0, 1, 3]]))
    np.testing.assert_allclose(arrays.f1, [1.0, 2 / 3, 0.0], rtol=1e-6)
    np.testing.assert_allclose(arrays.precision, [1.0, 0.5, 1.0])
    np.testing.assert_allclose(arrays.recall, [1.0, 1.0, 0.0])


def test_counts_on_the_device_are_those_of_decoded_spans():
    scores = RNG.normal(size=(20, 3, 6, 6)).astype(np.float32)
    labels = flags(random_spans())
    counts = jax.jit(score_counts)(scores, labels)
    decoded = [set(decode_spans(s)) for s in scores]
    expected = span_counts(decoded, random_spans())
    for kind in range(3):
        assert tuple(int(x[kind]) for x in counts) == expected[kind]
    keep = np.arange(20)[:, None, None, None] < 7
    part = score_counts(scores, labels.astype(int), threshold=0.3, where=keep)
    decoded = [set(decode_spans(s, 0.3)) for s in scores[:7]]
    expected = span_counts(decoded, random_spans()[:7])
    assert [int(x) for x in part.correct] == [expected[k].correct for k in range(3)]
    assert all(x.dtype == jnp.int32 for x in part)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_counts_in_half_precision_are_those_of_decoded_spans(dtype):
    scores = jnp.full((1, 1, 2, 2), 0.3, dtype)  # rounded up, or down
    for count in (score_counts, jax.jit(score_counts)):
        predicted = count(scores, np.zeros(scores.shape), threshold=0.3).predicted
        assert int(predicted[0]) == len(decode_spans(scores[0], 0.3))
    assert (float(scores[0, 0, 0, 0]) > 0.3) == (predicted[0] == 3)


@pytest.mark.parametrize("span", [(0, 1.7, 2), (0.0, 0, 0), (0, 1)])
def test_a_span_is_three_integers(span):
    for call in (
        lambda: span_labels([span], 3, 4),
        lambda: span_indices([[span]], 3, 4, 2),
    ):
        with pytest.raises(TypeError, match="must be three integers"):
            call()


def test_indices_name_the_cells():
    indices = span_indices(NESTED, 3, 5, 4)
    assert indices.dtype == np.int32
    assert indices.tolist() == [[4, 7, 13, -1], [7, -1, -1, -1], [24, -1, -1, -1]]
    cells = span_labels(NESTED, 3, 5).reshape(3, 25)
    for row, flag in zip(indices, cells, strict=True):
        assert row[row >= 0].tolist() == np.flatnonzero(flag).tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decode_spans(np.ones((5, 5))), r"scores must be \[types, n, n\], got"),
        (lambda: decode_spans(np.ones((1, 5, 4))), r"shape \(1, 5, 4\)"),
        (lambda: decode_spans(np.ones((1, 1, 1)), np.nan), "threshold must be"),
        (lambda: decode_spans(np.full((1, 1, 1), np.nan)), "got nan"),
        (lambda: span_f1([set()], []), "got 1 and 0"),
        (lambda: span_labels([(0, 1, 0)], 1, 3), r"span \(0, 1, 0\) is not within"),
        (lambda: span_labels([(0, 0, 3)], 1, 3), "3 tokens; the end is inclusive"),
        (lambda: span_labels([(1, 0, 0)], 1, 3), "within 1 types"),
        (lambda: span_labels([(0, -1, 0)], 1, 3), "is not within"),
        (lambda: span_indices(NESTED, 3, 5, 2), "max_spans=2 is too small: type 0"),
        (lambda: score_counts(np.ones((2, 3, 3)), 0), r"\[batch, types, n, n\]"),
        (lambda: score_counts(np.ones((1, 1, 2, 3)), 0), r"got \(1, 1, 2, 3\)"),
        (lambda: score_counts(np.ones((1, 1, 3, 2)), 0), r"got \(1, 1, 3, 2\)"),
        (
            lambda: score_counts(np.ones((1, 2, 3, 3)), np.ones((1, 1, 3, 3))),
            "labels must have the shape",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
