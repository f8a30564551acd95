"""The baseline of every text table: TF-IDF of n-grams and logistic regression.

A method that loses to it is not evidence for anything. Chinese counts characters and
pairs of them, English words and pairs of them, with sublinear term frequencies, so
weights are (1 + log count) times the inverse document frequency, rows of length one.

>>> from expkit import data
>>> splits = {s: data.load("reviews", s) for s in ("train", "validation", "test")}
>>> fit_tfidf_classifier(
...     {name: split["text"] for name, split in splits.items()},
...     {name: split["label"] for name, split in splits.items()},
...     analyzer="char",
... ).accuracy["test"]  # doctest: +SKIP
0.844
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

Analyzer = Literal["char", "word"]
INVERSE_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class NgramResult(NamedTuple):
    """What the baseline reaches.

    Attributes:
        accuracy: of each split, in 0..1.
        majority: share of the commonest label of training in each split.
        inverse_strength: C of scikit-learn, the one that validates best.
        num_features: n-grams seen in training.
    """

    accuracy: dict[str, float]
    majority: dict[str, float]
    inverse_strength: float
    num_features: int


def fit_tfidf_classifier(
    texts: Mapping[str, Sequence[str]],
    labels: Mapping[str, Sequence[int]],
    *,
    analyzer: Analyzer,
    inverse_strengths: Sequence[float] = INVERSE_STRENGTHS,
) -> NgramResult:
    r"""Fits the baseline on `"train"` and measures it on every split.

    .. math:: \min_w \tfrac12 \|w\|^2 + C \sum_i \mathrm{CE}(w^\top \phi(x_i), y_i),

    where :math:`\phi` is TF-IDF of 1-grams and 2-grams. C is chosen on `"validation"`,
    the smallest of equals; without that split it is the middle one.

    Args:
        texts: n texts for each split; `"train"` is required.
        labels: n classes for each split, at least two of them in `"train"`.
        analyzer: what the n-grams are of: `"char"` for Chinese, `"word"` for English.
        inverse_strengths: the values of C to choose from, positive.

    Returns:
        Accuracies and the choice.

    Raises:
        ValueError: if an argument cannot be used.

    References:
        Salton and Buckley, *Term-weighting approaches in automatic text retrieval*,
        1988, table 1. https://doi.org/10.1016/0306-4573(88)90021-0
    """
    _check(texts, labels, analyzer, inverse_strengths)
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    vectorizer = _vectorizer(analyzer)
    features = {"train": vectorizer.fit_transform(texts["train"])}
    features |= {
        split: vectorizer.transform(rows)
        for split, rows in texts.items()
        if split != "train"
    }
    strengths = sorted(inverse_strengths)
    if "validation" not in texts:
        strengths = strengths[len(strengths) // 2 :][:1]
    judge = "validation" if "validation" in texts else "train"
    # The products are small and sparse: threads spend ten times the work on waiting.
    with threadpool_limits(1):
        models = [
            LogisticRegression(C=strength, max_iter=1000).fit(
                features["train"], labels["train"]
            )
            for strength in strengths
        ]
    # The first of equals, so the most regularised one.
    model = max(models, key=lambda model: model.score(features[judge], labels[judge]))
    values, counts = np.unique(labels["train"], return_counts=True)
    common = values[counts.argmax()]
    return NgramResult(
        {s: float(model.score(features[s], labels[s])) for s in texts},
        {s: float(np.mean(np.asarray(labels[s]) == common)) for s in texts},
        float(model.get_params()["C"]),
        len(vectorizer.vocabulary_),
    )


def tfidf_cosines(
    train: Sequence[str] | np.ndarray,
    first: Sequence[str] | np.ndarray,
    second: Sequence[str] | np.ndarray,
) -> np.ndarray:
    r"""Cosines of the TF-IDF vectors of pairs: the baseline of similarity.

    .. math:: \phi(a_i)^\top \phi(b_i), \qquad \|\phi\| = 1.

    Args:
        train: texts that the inverse document frequencies are counted in.
        first: n texts.
        second: n texts.

    Returns:
        float32 [n], from 0 to 1; 0 where a text has no n-gram of the training texts.

    References:
        Salton and Buckley, *Term-weighting approaches in automatic text retrieval*,
        1988, table 1. https://doi.org/10.1016/0306-4573(88)90021-0
    """
    vectorizer = _vectorizer(choose_analyzer(train))
    vectorizer.fit(train)
    products = vectorizer.transform(first).multiply(vectorizer.transform(second))
    return np.asarray(products.sum(axis=1), np.float32).ravel()


def choose_analyzer(texts: Sequence[str] | np.ndarray) -> Analyzer:
    """What n-grams of some texts are of.

    Args:
        texts: of which the first thousand are looked at.

    Returns:
        `"char"` if a third of the characters are Han, which come without spaces between
        words, else `"word"`.
    """
    characters = "".join(texts[:1000])
    num_han = sum("\u4e00" <= c <= "\u9fff" for c in characters)
    return "char" if 3 * num_han > len(characters) else "word"


def _vectorizer(analyzer: Analyzer) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # The default pattern leaves out words of one letter.
    options: dict[str, Any] = {"token_pattern": r"\w+"} if analyzer == "word" else {}
    return TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, analyzer=analyzer, **options
    )


def _check(texts, labels, analyzer, inverse_strengths) -> None:
    if analyzer not in get_args(Analyzer):
        raise ValueError(
            f"analyzer must be one of {get_args(Analyzer)}, got {analyzer!r}."
        )
    if "train" not in texts or set(texts) != set(labels):
        raise ValueError(
            "texts and labels need the same splits, 'train' among them, got "
            f"{sorted(texts)} and {sorted(labels)}."
        )
    for split, rows in texts.items():
        if len(rows) != len(labels[split]) or len(rows) == 0:
            raise ValueError(
                f"{split!r} has {len(rows)} texts and {len(labels[split])} labels; "
                "give one label a text, and at least one text."
            )
    if len(np.unique(labels["train"])) < 2:
        raise ValueError(
            f"labels of 'train' must have two classes, got {set(labels['train'])!r}; "
            "take more rows."
        )
    if not inverse_strengths or min(inverse_strengths) <= 0:
        raise ValueError(
            f"inverse_strengths must be positive, got {inverse_strengths!r}."
        )
