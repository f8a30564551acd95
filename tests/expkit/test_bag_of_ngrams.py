"""The n-gram baseline: weights, choice of C, what it must and cannot learn."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from expkit import bag_of_ngrams
from expkit.bag_of_ngrams import fit_tfidf_classifier
from expkit.data import load

SPLITS = ("train", "validation", "test")


def made_up(n, seed, shuffled=False):
    """Sentences of ten letters; the pair "x y" in this order makes class 1."""
    rng = np.random.default_rng(seed)
    texts, labels = [], rng.integers(0, 2, n)
    for label in labels:
        words = list(rng.choice(list("abcdefgh"), 8))
        pair = ["x", "y"] if label else ["y", "x"]
        place = rng.integers(0, 9)
        texts.append(" ".join(words[:place] + pair + words[place:]))
    return texts, rng.permutation(labels) if shuffled else labels


def splits_of(**options):
    parts = [made_up(200, seed, **options) for seed in range(3)]
    texts, labels = zip(*parts, strict=True)
    return dict(zip(SPLITS, texts, strict=True)), dict(zip(SPLITS, labels, strict=True))


@pytest.mark.parametrize("analyzer", ["char", "word"])
def test_order_of_two_words_is_learned_from_word_pairs_only(analyzer):
    result = fit_tfidf_classifier(*splits_of(), analyzer=analyzer)
    # Pairs of characters see a letter and the space beside it, never both letters.
    assert (result.accuracy["test"] > 0.95) == (analyzer == "word")


def test_pairs_of_characters_see_the_order_of_characters():
    texts, labels = splits_of()
    joined = {s: ["".join(t.split()) for t in rows] for s, rows in texts.items()}
    result = fit_tfidf_classifier(joined, labels, analyzer="char")
    assert result.accuracy["test"] > 0.95


def test_shuffled_labels_are_not_learned():
    result = fit_tfidf_classifier(*splits_of(shuffled=True), analyzer="word")
    assert abs(result.accuracy["test"] - 0.5) < 4 * np.sqrt(0.25 / 200)


def test_accuracy_agrees_with_weights_computed_by_hand():
    texts, labels = splits_of()
    texts = {s: [t.replace(" ", "") for t in rows] for s, rows in texts.items()}
    counter = CountVectorizer(analyzer="char", ngram_range=(1, 2)).fit(texts["train"])
    counts = {s: counter.transform(rows).toarray() for s, rows in texts.items()}
    idf = np.log((1 + 200) / (1 + (counts["train"] > 0).sum(0))) + 1
    rows = {}
    for split, count in counts.items():
        weights = np.where(count > 0, 1 + np.log(np.maximum(count, 1)), 0.0) * idf
        rows[split] = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    model = LogisticRegression(C=0.3, max_iter=1000).fit(rows["train"], labels["train"])
    result = fit_tfidf_classifier(
        texts, labels, analyzer="char", inverse_strengths=[0.3]
    )
    for split in SPLITS:
        expected = np.mean(model.predict(rows[split]) == labels[split])
        assert result.accuracy[split] == expected
    assert result.num_features == len(idf)


def test_the_strength_that_validates_best_is_taken():
    texts, labels = splits_of()
    strengths = (1e-6, 0.1, 10.0)
    alone = {
        c: fit_tfidf_classifier(texts, labels, analyzer="word", inverse_strengths=[c])
        for c in strengths
    }
    found = fit_tfidf_classifier(
        texts, labels, analyzer="word", inverse_strengths=strengths
    )
    best = max(result.accuracy["validation"] for result in alone.values())
    assert found.accuracy["validation"] == best
    assert found == alone[found.inverse_strength]


def test_majority_is_the_share_of_the_commonest_training_label():
    texts, labels = splits_of()
    labels["train"] = np.array([1] * 150 + [0] * 50)
    result = fit_tfidf_classifier(texts, labels, analyzer="word")
    assert result.majority["train"] == 0.75
    assert result.majority["test"] == labels["test"].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"analyzer": "bytes"}, r"analyzer must be one of .* got 'bytes'"),
        ({"labels": {"train": [0, 1]}}, "the same splits"),
        ({"texts": {}, "labels": {}}, "'train' among them"),
        ({"labels": {"train": [0], "test": [0]}}, "2 texts and 1 labels"),
        ({"labels": {"train": [1, 1], "test": [0]}}, "two classes"),
        ({"inverse_strengths": [1.0, 0.0]}, "must be positive"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {
        "texts": {"train": ["a b", "c"], "test": ["d"]},
        "labels": {"train": [0, 1], "test": [0]},
        "analyzer": "word",
    }
    with pytest.raises(ValueError, match=message):
        fit_tfidf_classifier(**{**arguments, **change})


@pytest.mark.slow
def test_reviews_reach_the_published_accuracy():
    splits = {split: load("reviews", split) for split in SPLITS}
    texts = {name: data["text"] for name, data in splits.items()}
    labels = {name: data["label"] for name, data in splits.items()}
    # Measured elsewhere on another split of the same reviews: .715, .812, .847.
    for n, expected in ((170, 0.715), (2_000, 0.812), (None, 0.847)):
        result = fit_tfidf_classifier(
            {**texts, "train": texts["train"][:n]},
            {**labels, "train": labels["train"][:n]},
            analyzer="char",
        )
        sd = np.sqrt(expected * (1 - expected) / len(texts["test"]))
        assert abs(result.accuracy["test"] - expected) < 4 * sd


@pytest.mark.parametrize(
    ("texts", "analyzer"),
    [
        (["这家酒店很好"], "char"),
        (["JAX 是一个用于数组计算的库"], "char"),
        (["Returns the sum.", "of 和"], "word"),
        ([""], "word"),
    ],
)
def test_texts_without_spaces_are_told_from_words(texts, analyzer):
    assert bag_of_ngrams.choose_analyzer(np.array(texts, object)) == analyzer


def test_cosines_of_pairs_are_those_of_the_weights_by_hand():
    train = ["a b", "a c", "a"]
    got = bag_of_ngrams.tfidf_cosines(train, ["a b", "b c", "x"], ["a", "b b", "a"])
    # idf of scikit-learn: log((1 + n) / (1 + df)) + 1; 1-grams and 2-grams.
    idf = {"a": 1.0, "b": np.log(2) + 1, "c": np.log(2) + 1, "a b": np.log(2) + 1}
    first = idf["a"] / np.sqrt(idf["a"] ** 2 + idf["b"] ** 2 + idf["a b"] ** 2)
    second = idf["b"] / np.sqrt(idf["b"] ** 2 + idf["c"] ** 2)
    np.testing.assert_allclose(got, [first, second, 0.0], rtol=1e-6)
