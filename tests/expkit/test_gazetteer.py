"""The lookup of mentions against what the eye finds."""

import re

import numpy as np

from expkit import gazetteer


def test_the_longest_mention_wins_from_the_left():
    texts = ["Ann Lee met Ann."]
    spans = [[("person", 0, 6), ("person", 12, 14)]]
    found = gazetteer.find_mentions(texts, spans, ["Ann Lee, Ann and Lee"])
    assert found == [{("person", 0, 6), ("person", 9, 11)}]


def test_a_mention_does_not_go_beyond_the_end_of_a_text():
    found = gazetteer.find_mentions(["Annie"], [[("person", 0, 4)]], ["An", "Annie"])
    assert found == [set(), {("person", 0, 4)}]


def test_a_word_that_is_seldom_a_mention_is_none():
    texts = ["may May may may", "Bob may"]
    spans = [[("month", 4, 6)], [("person", 0, 2), ("month", 4, 6)]]
    for share, expected in ((0.5, {("person", 0, 2)}), (0.2, {("month", 8, 10)})):
        (found,) = gazetteer.find_mentions(
            texts, spans, ["Bob saw may"], least_share=share
        )
        assert expected <= found
        assert (("month", 8, 10) in found) == (share == 0.2)


def test_the_type_is_that_of_most_occurrences():
    spans = [[("place", 0, 0)], [("person", 0, 0)], [("person", 0, 0)]]
    found = gazetteer.find_mentions(["a", "a", "a"], spans, ["ba"])
    assert found == [{("person", 1, 1)}]


def test_without_mentions_nothing_is_found():
    assert gazetteer.find_mentions(["abc"], [[]], ["abc", ""]) == [set(), set()]


def test_it_finds_what_a_regular_expression_finds():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abc"), 30)) for _ in range(20)]
    words = ["ab", "abc", "ca", "b", "cccc"]
    spans = [
        [("x", m.start(), m.end() - 1)]
        for m in [re.search("ab", t) for t in texts]
        if m
    ]
    texts = [t for t in texts if "ab" in t] + words
    spans += [[("x", 0, len(word) - 1)] for word in words]
    found = gazetteer.find_mentions(texts, spans, texts, least_share=0.0)
    pattern = re.compile("|".join(sorted(words, key=len, reverse=True)))
    for text, mentions in zip(texts, found, strict=True):
        expected = {("x", m.start(), m.end() - 1) for m in pattern.finditer(text)}
        assert mentions == expected
