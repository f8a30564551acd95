"""Pairs that differ in the order of their words, and what tells them apart."""

import collections

import pytest

from expkit import data
from expkit.datasets import word_order

TEXTS = [" ".join(f"w{i}x{j}" for j in range(14 + i)) for i in range(40)]


def test_pairs_in_order_lack_one_word_and_the_others_have_two_swapped():
    pairs = word_order.swapped_pairs(TEXTS)
    assert collections.Counter(label for _, _, label in pairs) == {0: 40, 1: 40}
    for first, second, label in pairs:
        words, other = first.split(), second.split()
        assert len(words) == word_order.NUM_WORDS
        assert len(other) == word_order.NUM_WORDS - 1
        assert set(other) < set(words)
        kept = [word for word in words if word in other]
        moved = sum(a != b for a, b in zip(kept, other, strict=True))
        assert (moved == 0) == (label == 1)


def test_which_words_are_there_does_not_tell():
    pairs = word_order.swapped_pairs(TEXTS)
    missing = {0: set(), 1: set()}
    for first, second, label in pairs:
        (gone,) = set(first.split()) - set(second.split())
        missing[label].add(int(gone.rsplit("x", 1)[1]))
    assert min(map(len, missing.values())) > 8  # any word, for both


def test_short_texts_are_left_out_and_draws_depend_on_the_text_alone():
    assert word_order.swapped_pairs(["too short"]) == []
    both = word_order.swapped_pairs(TEXTS[:2])
    alone = word_order.swapped_pairs(TEXTS[:1])
    assert set(alone) < set(both)


def test_words_that_are_the_same_are_not_swapped():
    assert all(
        label == 1
        for _, _, label in word_order.swapped_pairs([" ".join(["same"] * 14)])
    )


def test_the_files_load_as_a_source(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, split: {"text": TEXTS})
    name = word_order.write(tmp_path / "deep" / "pairs")
    monkeypatch.undo()
    rows = data.load(name, "test")
    assert sorted(rows) == ["label", "text_1", "text_2"]
    assert len(rows["label"]) == 80
    with pytest.raises(ValueError, match="no such file"):
        data.load(name, "other")
