"""Pairs of texts as rows of ids, against transformers.

The references are in pair_references.json, made by make_pair_references.py with the
BERT tokenizer of `transformers` and its truncation "longest_first".
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from expkit import text
from expkit.text import folders

pytest.importorskip("tokenizers")

REFERENCES = json.loads(
    Path(__file__).with_name("pair_references.json").read_text(encoding="utf-8")
)
TEXTS = REFERENCES["texts"]
FIRST = [a for a in TEXTS for _ in TEXTS]
SECOND = [b for _ in TEXTS for b in TEXTS]


@pytest.fixture(scope="module")
def minilm():
    return text.load_tokenizer()


@pytest.mark.parametrize("max_length", [5, 6, 7, 8, 11, 12, 13, 64])
def test_ids_and_kinds_are_those_of_transformers(minilm, max_length):
    expected = REFERENCES["expected"][str(max_length)]
    ids, mask, types = minilm.encode_pairs(FIRST, SECOND, max_length=max_length)
    assert [r[m].tolist() for r, m in zip(ids, mask, strict=True)] == expected["ids"]
    places = np.arange(ids.shape[1])
    is_second = places >= np.array(expected["firsts"])[:, None]
    np.testing.assert_array_equal(types, is_second & mask)
    assert (ids[~mask] == minilm.pad_id).all()
    assert (ids.dtype, mask.dtype, types.dtype) == (np.int32, bool, np.int32)


def test_agrees_with_transformers_installed_here(minilm):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(folders.find_folder())
    rng = np.random.default_rng(0)
    first, second = (
        ["a " * n for n in rng.integers(0, 12, size=200)] for _ in range(2)
    )
    for max_length in (9, 10):
        expected = reference(
            first, second, truncation="longest_first", max_length=max_length
        )
        ids, mask, types = minilm.encode_pairs(first, second, max_length=max_length)
        rows = zip(ids, types, mask, strict=True)
        got = [(r[m].tolist(), t[m].tolist()) for r, t, m in rows]
        names = ("input_ids", "token_type_ids")
        assert got == list(zip(*(expected[n] for n in names), strict=True))


@pytest.mark.parametrize(
    ("lengths", "columns"), [(text.LENGTHS, 32), (None, 50), ((4, 8), 8), ((4,), 50)]
)
def test_rows_have_the_least_length_that_holds_them(minilm, lengths, columns):
    ids, mask, types = minilm.encode_pairs(
        ["a b", ""], ["c d e", "f"], max_length=50, lengths=lengths
    )
    assert ids.shape == mask.shape == types.shape == (2, columns)
    assert mask.sum(axis=1).tolist() == [8, 4]
    assert types.sum(axis=1).tolist() == [4, 2]


def test_characters_have_no_special_tokens_between_them(tmp_path):
    text.save_encoder(
        tmp_path,
        sizes := text.EncoderConfig(6, 8, 1, 2, 8),
        text.init_encoder(sizes, jax.random.key(0)),
        tokenizer=text.CharVocabulary(("a", "b", "c")),
    )
    tokenizer = text.load_tokenizer(tmp_path)
    ids, mask, types = tokenizer.encode_pairs(["ab", ""], ["ca", "c"], max_length=8)
    assert [r[m].tolist() for r, m in zip(ids, mask, strict=True)] == [
        [3, 4, 5, 3],
        [5],
    ]
    assert [r[m].tolist() for r, m in zip(types, mask, strict=True)] == [
        [0, 0, 1, 1],
        [1],
    ]


def test_no_rows_give_no_rows(minilm):
    ids, mask, types = minilm.encode_pairs([], [], max_length=16)
    assert ids.shape == mask.shape == types.shape == (0, 16)


@pytest.mark.parametrize(
    ("first", "second", "max_length", "error", "message"),
    [
        (["a"], ["b", "c"], 16, ValueError, "got 1 first texts and 2 second"),
        (["a"], ["b"], 4, ValueError, "max_length=4 has no room for two texts"),
        ("a", ["b"], 16, TypeError, "texts must be a list of strings, got one: 'a'"),
        (["a"], [b"b"], 16, TypeError, "texts must be strings, got b'b'"),
        (["a"], [None], 16, TypeError, "texts must be strings, got None"),
    ],
)
def test_wrong_pairs_are_refused(minilm, first, second, max_length, error, message):
    with pytest.raises(error, match=message):
        minilm.encode_pairs(first, second, max_length=max_length)
