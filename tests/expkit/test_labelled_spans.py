"""Spans as tokens and back: places, windows that cut none, what is left out, errors."""

import itertools
import random

import numpy as np
import pytest

from expkit import text
from expkit.labelled_spans import (
    encode_spans,
    span_types,
    to_characters,
    unseen_mentions,
)

pytest.importorskip("tokenizers")

TYPES = ("name", "place")


@pytest.fixture(scope="module")
def minilm():
    return text.load_tokenizer()


@pytest.fixture(scope="module")
def zh_char():
    return text.load_tokenizer("zh_char")


def spans_of(string, **mentions):
    return [
        (kind, string.index(mention), string.index(mention) + len(mention) - 1)
        for kind, mention in mentions.items()
    ]


def labels_of(rows):
    return [[tuple(s) for s in found.tolist() if s[0] >= 0] for found in rows.labels]


def words(rows, tokenizer, window):
    found = labels_of(rows)[window]
    ids = rows.ids[window].tolist()
    return [tokenizer.backend.decode(ids[first : last + 1]) for _, first, last in found]


def test_labels_are_the_tokens_of_the_spans(minilm):
    string = "Yesterday Ada Lovelace-Byron met Bob in Ramsgate."
    spans = spans_of(string, name="Ada Lovelace-Byron", place="Ramsgate")
    rows = encode_spans(minilm, [string], [spans], TYPES, max_length=32)
    assert words(rows, minilm, 0) == ["ada lovelace - byron", "ramsgate"]
    assert [kind for kind, _, _ in labels_of(rows)[0]] == [0, 1]
    assert (rows.num_unaligned, rows.num_cut, rows.types) == (0, 0, TYPES)


@pytest.mark.parametrize("name", ["minilm", "zh_char"])
def test_ids_are_those_of_encode_where_nothing_is_cut(request, name):
    tokenizer = request.getfixturevalue(name)
    texts = ["A short one.", "", "好书 \uff11\uff19", "a\u0301 ㈱ [SEP] \U0001f600"]
    rows = encode_spans(tokenizer, texts, [[]] * 4, TYPES, max_length=64)
    ids, mask = tokenizer.encode(texts, max_length=64)
    np.testing.assert_array_equal(rows.ids, ids)
    assert rows.row.tolist() == [0, 1, 2, 3]
    has_place = (rows.offsets >= 0).all(axis=-1)
    assert not has_place[~mask].any()
    assert (has_place.sum(axis=1) == mask.sum(axis=1) - tokenizer.num_special).all()


def test_offsets_cut_the_text_of_each_token(minilm):
    string = "Ünïcode İs FINE, e\u0301 too"
    rows = encode_spans(minilm, [string], [[]], TYPES, max_length=32)
    places = [p for p in rows.offsets[0].tolist() if p[0] >= 0]
    pieces = [string[start : end + 1] for start, end in places]
    assert "".join(pieces) == string.replace(" ", "")
    assert pieces[-2:] == ["e\u0301", "too"]


@pytest.mark.parametrize(
    ("string", "mention"),
    [
        ("Señor Müller came", "Müller"),
        ("at the cafe\u0301 today", "cafe\u0301"),
        ("IN İSTANBUL NOW", "İSTANBUL"),
        ("在北京大学。", "北京大学"),
        ("\uff21\uff22公司\uff11\uff19年", "\uff21\uff22公司"),
        ("的㈱东京", "㈱东京"),
        ("好 \U0001f600 书\n店", "\U0001f600 书\n店"),
        ("e\u0301点", "e\u0301"),
    ],
)
@pytest.mark.parametrize("name", ["minilm", "zh_char"])
def test_spans_come_back_as_they_were(request, name, string, mention):
    tokenizer = request.getfixturevalue(name)
    spans = spans_of(string, name=mention)
    rows = encode_spans(tokenizer, [string], [spans], TYPES, max_length=32)
    assert rows.num_unaligned == 0
    assert to_characters(rows, labels_of(rows)) == [set(spans)]


def test_a_border_inside_a_token_is_left_out_and_counted(minilm, zh_char):
    string, spans = "the cats sat", [("name", 4, 6), ("name", 3, 7), ("name", 4, 7)]
    rows = encode_spans(minilm, [string], [spans], TYPES, max_length=32)
    assert (rows.num_unaligned, words(rows, minilm, 0)) == (2, ["cats"])
    rows = encode_spans(zh_char, [string], [spans], TYPES, max_length=32)
    assert rows.num_unaligned == 0


def test_labels_are_padded_and_there_is_always_a_place(zh_char):
    spans = [[], [("place", 0, 1), ("name", 0, 0), ("name", 0, 0)], [("name", 1, 1)]]
    rows = encode_spans(zh_char, ["北京"] * 3, spans, TYPES, max_length=8)
    none = [-1] * 3
    assert rows.labels.tolist() == [
        [none, none],
        [[1, 0, 1], [0, 0, 0]],
        [[0, 1, 1], none],
    ]
    empty = encode_spans(zh_char, ["北京"], [[]], TYPES, max_length=8)
    assert empty.labels.tolist() == [[none]]


@pytest.mark.parametrize(
    ("lengths", "expected"), [(text.LENGTHS, 32), (None, 40), ((4, 8), 8), ((4,), 40)]
)
def test_windows_have_a_static_length(minilm, lengths, expected):
    rows = encode_spans(
        minilm, ["a b c d e"], [[]], TYPES, max_length=40, lengths=lengths
    )
    assert rows.ids.shape == (1, expected)
    assert rows.offsets.shape == (1, expected, 2)


def test_no_texts_give_no_windows(minilm):
    rows = encode_spans(minilm, [], [], TYPES, max_length=8)
    assert rows.ids.shape == (0, 8)
    assert rows.labels.shape == (0, 1, 3)
    assert to_characters(rows, []) == []


def nested_spans(rng, start, stop, depth=3):
    """Spans of a tree, as nodes of code have."""
    spans = []
    while start < stop and depth:
        first = rng.randint(start, start + 4)
        last = min(stop, first + rng.randint(0, 12))
        spans.append((rng.choice(TYPES), first, last))
        spans += nested_spans(rng, first, last, depth - 1)
        start = last + 1
    return list(dict.fromkeys(s for s in spans if s[2] < stop))


def brute_force_cut(start, stop, room, spans):
    if stop - start <= room:
        return stop
    hits = {
        cut: sum(
            start <= first < cut <= last and last - first < room
            for _, first, last in spans
        )
        for cut in range(start + 1, start + room + 1)
    }
    return max(cut for cut in hits if hits[cut] == min(hits.values()))


@pytest.mark.parametrize("name", ["minilm", "zh_char"])
def test_long_texts_become_windows_that_cut_no_nested_span(request, name):
    tokenizer = request.getfixturevalue(name)
    rng, room = random.Random(0), 14
    texts = ["".join(rng.choices("好书店北京", k=n)) for n in range(1, 90, 4)]
    spans = [nested_spans(rng, 0, len(string)) for string in texts]
    longest = room + tokenizer.num_special
    rows = encode_spans(tokenizer, texts, spans, TYPES, max_length=longest)
    assert (rows.num_unaligned, rows.num_cut) == (0, 0)
    assert to_characters(rows, labels_of(rows)) == [set(found) for found in spans]
    assert rows.ids.shape[1] == longest
    for i, string in enumerate(texts):
        places = rows.offsets[rows.row == i][..., 0]
        assert places[places >= 0].tolist() == list(range(len(string)))
        cuts, start = [], 0
        while start < len(string):
            start = brute_force_cut(start, len(string), room, spans[i])
            cuts.append(start)
        assert np.cumsum((places >= 0).sum(axis=1)).tolist() == cuts


def test_cuts_at_equal_distances_would_lose_spans():
    spans = nested_spans(random.Random(0), 0, 85)
    cut = [c for c in range(14, 85, 14) for _, i, j in spans if i < c <= j]
    assert len(set(cut)) > 2


def test_a_span_longer_than_a_window_is_left_out_and_does_not_hinder(zh_char):
    spans = [("name", 0, 8), ("place", 2, 4), ("place", 5, 5)]
    rows = encode_spans(zh_char, ["好" * 12], [spans], TYPES, max_length=6)
    assert rows.num_cut == 1
    assert (rows.ids != zh_char.pad_id).sum(axis=1).tolist() == [6, 6]
    assert to_characters(rows, labels_of(rows)) == [set(spans[1:])]


def test_a_chain_of_overlaps_is_cut_where_it_costs_the_least(zh_char):
    spans = [("name", 0, 5), ("place", 0, 4), ("name", 4, 9)]
    rows = encode_spans(zh_char, ["好" * 12], [spans], TYPES, max_length=8)
    assert rows.num_cut == 1
    assert to_characters(rows, labels_of(rows)) == [set(spans[:2])]
    assert (rows.ids != zh_char.pad_id).sum(axis=1).tolist() == [8, 4]


def test_windows_keep_the_special_tokens_in_their_places(minilm):
    rows = encode_spans(minilm, ["a b c d e f g"], [[]], TYPES, max_length=5)
    assert rows.ids[:, 0].tolist() == [101] * 3
    assert rows.ids[:2, -1].tolist() == [102] * 2
    assert rows.ids[2].tolist()[2:] == [102, minilm.pad_id, minilm.pad_id]
    assert minilm.special_ids == ([101], [102])


def test_predictions_on_special_tokens_and_padding_are_left_out(minilm):
    rows = encode_spans(minilm, ["a b"], [[]], TYPES, max_length=32)
    found = to_characters(rows, [[(0, 0, 1), (1, 1, 3), (0, 20, 21), (1, 1, 2)]])
    assert found == [{("place", 0, 2)}]


def test_every_text_has_its_set_of_predictions(zh_char):
    texts = ["", "好" * 7, "书"]
    rows = encode_spans(zh_char, texts, [[]] * 3, TYPES, max_length=3)
    assert rows.row.tolist() == [0, 1, 1, 1, 2]
    first = [[], [(0, 0, 0)], [(0, 0, 2)], [], [(1, 0, 0)]]
    expected = [set(), {("name", 0, 0), ("name", 3, 5)}, {("place", 0, 0)}]
    assert to_characters(rows, first) == expected
    with pytest.raises(ValueError, match="for 1 windows of 5; predict every"):
        to_characters(rows, [[]])


def test_types_are_sorted_and_must_exist():
    assert span_types([[("b", 0, 1)], [], [("a", 0, 0), ("b", 2, 2)]]) == ("a", "b")
    for nothing in ([], [[], []]):
        with pytest.raises(ValueError, match="training split has no spans"):
            span_types(nothing)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"spans": [[("thing", 0, 1)]]}, ValueError, "text 0 .* 'thing'.*'name', 'pl"),
        (
            {"spans": [[("name", 0, 4)]]},
            ValueError,
            r"\('name', 0, 4\) .* 4 characters",
        ),
        ({"spans": [[("name", -1, 1)]]}, ValueError, r"\('name', -1, 1\) lies outside"),
        ({"spans": [[("name", 2, 1)]]}, ValueError, r"\('name', 2, 1\) lies outside"),
        ({"spans": []}, ValueError, "1 texts and spans for 0"),
        (
            {"types": ["a", "a"]},
            ValueError,
            r"types must be distinct, got \['a', 'a'\]",
        ),
        ({"max_length": 2}, ValueError, "at least 3, .* got 2"),
        ({"lengths": [0]}, ValueError, "lengths must be at least 1, got 0"),
        ({"texts": [b"a"]}, TypeError, "must be strings"),
    ],
)
def test_wrong_arguments_are_named(minilm, change, error, message):
    arguments = {"texts": ["a bc"], "spans": [[]], "types": TYPES, "max_length": 8}
    with pytest.raises(error, match=message):
        encode_spans(minilm, **(arguments | change))


def test_mentions_are_unseen_when_no_training_text_has_them_with_their_type():
    train = (["Ada met Bob", "Rome"], [[("name", 0, 2)], [("place", 0, 3)]])
    texts = ["Ada, Bob, ADA", "Rome"]
    spans = [[("name", 0, 2), ("name", 5, 7), ("name", 10, 12)], {("name", 0, 3)}]
    assert unseen_mentions(*train, texts, spans) == [
        {("name", 5, 7), ("name", 10, 12)},
        {("name", 0, 3)},
    ]
    known = list(itertools.chain(*unseen_mentions(*train, *train)))
    assert known == []
