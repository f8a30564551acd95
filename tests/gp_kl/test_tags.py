"""BIO tags and spans are each other's inverse, and stray tags are defined."""

import jax.numpy as jnp
import numpy as np
import pytest

from gp_kl import bio_to_spans, span_indices, span_labels, spans_to_bio


def random_spans(rng, length=12, types=3):
    """Spans that do not overlap, some of them adjacent."""
    spans, i = [], 0
    while i < length:
        end = i + int(rng.integers(3))
        if rng.random() < 0.6 and end < length:
            spans.append((int(rng.integers(types)), i, end))
        i = end + 1
    return spans


def test_spans_survive_the_way_there_and_back():
    rng = np.random.default_rng(0)
    for _ in range(200):
        spans = random_spans(rng)
        assert bio_to_spans(spans_to_bio(spans, 12)) == spans


def by_the_book(tags):
    """The rules of the CoNLL evaluation, one token after the other."""
    spans, current = [], None
    for i, tag in enumerate([*tags, 0]):
        kind = (tag - 1) // 2
        if current and (tag == 0 or tag % 2 == 1 or kind != current[0]):
            spans.append((current[0], current[1], i - 1))
            current = None
        if tag and current is None:
            current = (kind, i)
    return spans


def test_any_sequence_of_tags_has_the_spans_of_the_shared_task():
    rng = np.random.default_rng(1)
    for _ in range(300):
        tags = rng.integers(5, size=8).tolist()
        assert bio_to_spans(tags) == by_the_book(tags)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ([], []),
        ([0, 0], []),
        ([1, 2, 2], [(0, 0, 2)]),
        ([1, 1], [(0, 0, 0), (0, 1, 1)]),
        ([1, 4], [(0, 0, 0), (1, 1, 1)]),
        ([0, 2, 2], [(0, 1, 2)]),
        ([3, 4, 0, 3], [(1, 0, 1), (1, 3, 3)]),
    ],
)
def test_tags_by_hand(tags, spans):
    assert bio_to_spans(np.array(tags, int)) == spans


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spans_to_bio([(0, 0, 2), (1, 2, 3)], 5), r"span \(1, 2, 3\) overlaps"),
        (lambda: spans_to_bio([(0, 0, 5)], 5), "is not within 5 tokens"),
        (lambda: spans_to_bio([(-1, 0, 0)], 5), "is not within"),
        (lambda: spans_to_bio([(0, 2, 1)], 5), "the end is inclusive"),
        (lambda: bio_to_spans([[1]]), r"tags must be \[n\] .* shape \(1, 1\)"),
        (lambda: bio_to_spans([-1]), "with negative ones"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", [float, np.float32, bool, complex])
def test_tags_that_are_no_integers_are_named(dtype):
    with pytest.raises(TypeError, match="tags must be integers, got "):
        bio_to_spans(np.array([0, 1, 1], dtype))
    with pytest.raises(TypeError, match="tags must be integers, got float"):
        bio_to_spans([0, np.nan, 2])  # would be a further token of a type


@pytest.mark.parametrize(
    "call",
    [
        lambda length: spans_to_bio([(0, 1, 2)], length),
        lambda length: span_labels([(0, 1, 2)], 1, length),
        # A row of 5.5 cells moved every span after the first token.
        lambda length: span_indices([(0, 1, 2)], 1, length, 4),
    ],
)
def test_lengths_are_integers(call):
    for length in (5.5, np.float32(5), None, "5"):
        with pytest.raises(TypeError, match="length must be an integer, got "):
            call(length)
    with pytest.raises(ValueError, match="length must be at least 0, got -1"):
        call(-1)
    for length in (np.int8(5), np.array(5), jnp.array(5)):
        np.testing.assert_array_equal(call(length), call(5))


def test_a_narrow_length_does_not_wrap_the_index_of_a_cell():
    got = span_indices([(0, 100, 150)], 1, np.uint8(200), 1)
    np.testing.assert_array_equal(got, [[np.ravel_multi_index((100, 150), (200, 200))]])


def test_integers_of_any_kind_make_a_span_and_nothing_else_does():
    row = np.array([1, 0, 2])
    for span in (row, row.astype(np.int8), jnp.asarray(row), [np.int64(1), 0, 2]):
        np.testing.assert_array_equal(spans_to_bio([span], 4), [3, 4, 4, 0])
    for span in [(0.5, 1, 2), row.astype(float), (0, 1), (0, 1, 2, 3), ("0", 1, 2), 3]:
        with pytest.raises(TypeError, match="must be three integers"):
            spans_to_bio([span], 4)
