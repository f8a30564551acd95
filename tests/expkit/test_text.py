"""Vocabulary, encoding, unigram frequencies and masking."""

import collections
import math

import jax
import numpy as np
import pytest

from expkit import text

TEXTS = ["好书,好看", "书店很好", "", "ABC好"]


@pytest.fixture
def vocabulary():
    return text.build_vocabulary(TEXTS, min_count=1)


def test_characters_are_ordered_by_count_and_then_by_code_point():
    built = text.build_vocabulary(["bca", "cb", "c"], min_count=1)
    assert built.characters == ("c", "b", "a")
    tied = text.build_vocabulary(["看书b", "b看书a"], min_count=2)
    assert tied.characters == ("b", "书", "看")
    assert dict(tied.ids) == {"b": 3, "书": 4, "看": 5}
    assert tied.size == 6


def test_size_and_count_limit_the_vocabulary():
    texts = ["aaabbc"]
    assert text.build_vocabulary(texts, min_count=3).characters == ("a",)
    assert text.build_vocabulary(texts, max_size=5, min_count=1).size == 5
    assert text.build_vocabulary([], max_size=3).size == 3


def test_encoding_pads_cuts_and_knows_unknown_characters(vocabulary):
    ids, mask = text.encode(vocabulary, ["好书!", "", "好" * 9], max_length=4)
    good, book = vocabulary.ids["好"], vocabulary.ids["书"]
    assert ids.tolist() == [
        [good, book, text.UNKNOWN, text.PAD],
        [text.PAD] * 4,
        [good] * 4,
    ]
    assert ids.dtype == np.int32
    assert mask.tolist() == [[True] * 3 + [False], [False] * 4, [True] * 4]


def test_encoding_can_be_read_back(vocabulary):
    ids, mask = text.encode(vocabulary, TEXTS, max_length=8)
    symbols = ["", "", "", *vocabulary.characters]
    rows = [
        "".join(symbols[i] for i in row[keep])
        for row, keep in zip(ids, mask, strict=True)
    ]
    assert rows == ["好书,好看", "书店很好", "", "ABC好"]


def test_full_width_forms_are_the_plain_characters():
    built = text.build_vocabulary(["ABC"], min_count=1)
    wide, _ = text.encode(built, ["ABC"], max_length=3)
    plain, _ = text.encode(built, ["ABC"], max_length=3)
    np.testing.assert_array_equal(wide, plain)
    assert text.UNKNOWN not in plain


def test_unigram_probabilities_are_smoothed_frequencies(vocabulary):
    ids, mask = text.encode(vocabulary, TEXTS, max_length=8)
    got = np.exp(text.unigram_log_probabilities(vocabulary, ids, mask))
    counts = collections.Counter("".join(TEXTS).replace(",", ","))
    total = sum(counts.values()) + vocabulary.size
    expected = [1 / total] * 3 + [
        (counts[c] + 1) / total for c in vocabulary.characters
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(got.sum(), 1.0, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.9])
def test_the_share_of_masked_tokens_is_the_rate(rate):
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 50, (400, 64)).astype(np.int32)
    mask = np.arange(64) < rng.integers(0, 65, (400, 1))
    ids = np.where(mask, ids, text.PAD)
    masked = jax.jit(lambda key: text.mask_tokens(key, ids, mask, rate=rate))
    corrupted, selected = map(np.asarray, masked(jax.random.key(1)))
    assert not selected[~mask].any()
    assert (corrupted[selected] == text.MASK).all()
    np.testing.assert_array_equal(corrupted[~selected], ids[~selected])
    bound = 4 * math.sqrt(rate * (1 - rate) / mask.sum())
    assert abs(selected[mask].mean() - rate) < bound
    assert (masked(jax.random.key(2))[1] != selected).any()


def test_every_token_can_be_masked():
    ids = np.arange(3, 9, dtype=np.int32)
    corrupted, selected = text.mask_tokens(jax.random.key(0), ids, ids > 0, rate=1.0)
    assert selected.all()
    assert (corrupted == text.MASK).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: text.build_vocabulary([], max_size=2), "max_size .* got 2"),
        (lambda v: text.build_vocabulary([], min_count=0), "min_count .* got 0"),
        (lambda v: text.encode(v, ["a"], max_length=0), "max_length .* got 0"),
        (
            lambda v: text.mask_tokens(jax.random.key(0), [3], [True], rate=0.0),
            r"rate must be in \(0, 1\], got 0\.0",
        ),
    ],
)
def test_arguments_out_of_range_are_named(vocabulary, call, message):
    with pytest.raises(ValueError, match=message):
        call(vocabulary)
