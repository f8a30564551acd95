"""Places of tokens against transformers' and against the texts themselves."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from expkit import text
from expkit.text import folders

tokenizers = pytest.importorskip("tokenizers")

TEXTS = json.loads(
    Path(__file__).with_name("encoder_references.json").read_text(encoding="utf-8")
)["texts"]


@pytest.fixture(scope="module")
def minilm():
    return text.load_tokenizer()


@pytest.mark.parametrize("name", ["minilm", "zh_char"])
def test_tokens_between_special_ids_are_those_of_token_ids(name):
    tokenizer = text.load_tokenizer(name)
    first, last = tokenizer.special_ids
    assert len(first) + len(last) == tokenizer.num_special
    rows = [[*first, *tokens.ids, *last] for tokens in tokenizer.tokens(TEXTS)]
    assert rows == tokenizer.token_ids(TEXTS, max_length=10_000)


def random_texts(n=200):
    points = np.random.default_rng(0).integers(1, 0x3000, (n, 20))
    return ["".join(map(chr, row)) for row in points]


def test_places_agree_with_transformers_installed_here(minilm):
    transformers = pytest.importorskip("transformers")
    folder = folders.find_folder("minilm")
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    is_plain = [not any(map(unicodedata.combining, t)) for t in random_texts(2_000)]
    texts = [t for t, p in zip(random_texts(2_000), is_plain, strict=True) if p]
    expected = reference(
        texts, return_offsets_mapping=True, add_special_tokens=False, truncation=False
    )
    assert len(texts) > 100
    for tokens, ids, places in zip(
        minilm.tokens(texts),
        expected["input_ids"],
        expected["offset_mapping"],
        strict=True,
    ):
        assert tokens.ids == ids
        assert tokens.offsets == places


@pytest.mark.parametrize("name", ["minilm", "zh_char"])
def test_tokens_cover_all_that_is_seen_in_order(name):
    texts = ["Ünïcode e\u0301\u0323x", "  two  words\n", "a\u0301", "好, 书 \u2460"]
    found = text.load_tokenizer(name).tokens(texts)
    for string, (_, offsets) in zip(texts, found, strict=True):
        starts = [start for start, _ in offsets]
        assert starts == sorted(starts)
        covered = {i for start, stop in offsets for i in range(start, stop)}
        assert covered >= {i for i, c in enumerate(string) if not c.isspace()}


def test_a_leading_space_is_no_part_of_a_token_where_the_rules_trim_it():
    space = "\u0120"  # how byte-level rules write it
    ids = {"a": 0, space: 1, space + "a": 2, "<s>": 3}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(ids, [(space, "a")]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = tokenizers.processors.RobertaProcessing(
        ("<s>", 3), ("<s>", 3), trim_offsets=True
    )
    tokenizer = text.Tokenizer(backend, 3)
    assert tokenizer.special_ids == ([3], [3])
    assert tokenizer.tokens(["a a"]) == [([0, 2], [(0, 1), (2, 3)])]


def test_texts_must_be_strings(minilm):
    with pytest.raises(TypeError, match="a list of strings, got one: 'one'"):
        minilm.tokens("one")
    assert minilm.tokens([]) == []
