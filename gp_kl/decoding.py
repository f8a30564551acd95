r"""From scores to spans and back, and how good the spans are.

A span is `(type, start, end)` with an inclusive end. Su et al. (2022), *Global
Pointer*, predict every cell (a, i, j) with a score above 0: spans may nest and overlap.
They are compared as a whole,

.. math:: F_1 = \frac{2\, |P \cap G|}{|P| + |G|},

over all sentences and types (micro average). What differs from implementations: where
nothing is there and nothing was predicted, F1 is 1, not nan. Example::

    >>> scores = jnp.full((2, 4, 4), -jnp.inf).at[1, 0, 2].set(3.0)
    >>> decode_spans(scores)
    [(1, 0, 2)]
    >>> span_f1([{(1, 0, 2)}], [{(1, 0, 2), (0, 3, 3)}])
    0.6666666666666666
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from expkit import trees
from expkit.arguments import broadcast_mask, require_count, require_shape
from gp_kl.heads import span_mask
from gp_kl.tags import to_integers

Span = tuple[Hashable, int, int]


class SpanCounts(NamedTuple):
    """How many spans are right, predicted and true.

    Attributes:
        correct: predicted and true.
        predicted: all that were predicted.
        gold: all that are true.
    """

    correct: Any
    predicted: Any
    gold: Any

    @property
    def f1(self) -> Any:
        """2 correct / (predicted + gold), and 1 where both are empty."""
        return _ratio(2 * self.correct, self.predicted + self.gold)

    @property
    def precision(self) -> Any:
        """Share of the predicted spans that are true; 1 of none."""
        return _ratio(self.correct, self.predicted)

    @property
    def recall(self) -> Any:
        """Share of the true spans that were predicted; 1 of none."""
        return _ratio(self.correct, self.gold)


def decode_spans(
    scores: jax.typing.ArrayLike, threshold: float = 0.0
) -> list[tuple[int, int, int]]:
    r"""The spans whose scores are above a threshold.

    .. math:: \{(a, i, j) : s_a(i, j) > \theta,\ i \le j\}.

    Args:
        scores: of one sentence, `[types, n, n]`.
        threshold: :math:`\theta`, not nan.

    Returns:
        `(type, start, end)` of Python integers, sorted; end is inclusive.

    Raises:
        ValueError: if the scores have another shape or nan in a span, or the threshold
            is nan.

    References:
        Su et al., *Global Pointer: Novel Efficient Span-based Approach for Named Entity
        Recognition*, 2022, spans as cells. https://arxiv.org/abs/2208.03054
    """
    array = np.asarray(scores)
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        raise ValueError(f"scores must be [types, n, n], got shape {array.shape}.")
    if np.isnan(threshold):
        raise ValueError(f"threshold must be a number, got {threshold!r}.")
    if array.dtype.itemsize < 4:  # numpy is slow there, and warns in bfloat16
        array = array.astype(np.float32)
    if array.size and np.isnan(array.max()) and np.isnan(np.triu(array)).any():
        raise ValueError("scores must be numbers, got nan; is the model trained?")
    kinds, starts, ends = np.unravel_index(
        np.flatnonzero(array > threshold), array.shape
    )
    spans = zip(kinds.tolist(), starts.tolist(), ends.tolist(), strict=True)
    return [span for span in spans if span[1] <= span[2]]


def span_labels(
    spans: Iterable[tuple[int, int, int]], num_types: int, length: int
) -> np.ndarray:
    r"""The spans of a sentence as labels of cells; `decode_spans` is the inverse.

    .. math:: y_a(i, j) = [(a, i, j) \in G].

    Args:
        spans: `(type, start, end)` with integer types; may nest and overlap.
        num_types: m.
        length: n, of the sentence with its padding.

    Returns:
        Boolean `[types, n, n]`.

    Raises:
        TypeError: if a span is not three integers, or a size no integer.
        ValueError: if a span does not fit, or a size is too small.

    References:
        Su et al., *Global Pointer: Novel Efficient Span-based Approach for Named Entity
        Recognition*, 2022, spans as cells. https://arxiv.org/abs/2208.03054
    """
    length = require_count("length", length, smallest=0)
    labels = np.zeros((require_count("num_types", num_types), length, length), bool)
    for kind, start, end in _checked(spans, num_types, length):
        labels[kind, start, end] = True
    return labels


def span_indices(
    spans: Iterable[tuple[int, int, int]],
    num_types: int,
    length: int,
    max_spans: int,
) -> np.ndarray:
    r"""The spans of a sentence as indices of cells, padded with -1.

    .. math:: (a, i, j) \mapsto i\, n + j \quad \text{in row } a.

    What `sparse_multilabel_cross_entropy` takes, with scores `[types, n * n]`.

    Args:
        spans: `(type, start, end)` with integer types; may nest and overlap.
        num_types: m.
        length: n, of the sentence with its padding.
        max_spans: k, how many spans of one type a sentence may have.

    Returns:
        int32 `[types, k]`.

    Raises:
        TypeError: if a span is not three integers, or a size no integer.
        ValueError: if a span or a size does not fit, or a type has more spans than k.

    References:
        Su, *Softmax and cross-entropy for multi-label classification*, 2020,
        the sparse form. https://kexue.fm/archives/7359
    """
    shape = require_count("num_types", num_types), require_count("max_spans", max_spans)
    indices = np.full(shape, -1, np.int32)
    length = require_count("length", length, smallest=0)
    counts = np.zeros(num_types, int)
    for kind, start, end in sorted(set(_checked(spans, num_types, length))):
        if counts[kind] == max_spans:
            raise ValueError(
                f"max_spans={max_spans!r} is too small: type {kind} has more spans."
            )
        indices[kind, counts[kind]] = start * length + end
        counts[kind] += 1
    return indices


def span_f1(
    predicted: Sequence[Iterable[Span]], gold: Sequence[Iterable[Span]]
) -> float:
    r"""Micro-averaged F1 of the spans of a corpus, compared as a whole.

    .. math:: F_1 = \frac{2 \sum_n |P_n \cap G_n|}{\sum_n |P_n| + |G_n|}.

    Args:
        predicted: for each sentence the set of its spans; a span that a list repeats
            counts once.
        gold: the true ones, in the same order.

    Returns:
        In [0, 1]; 1 if there are neither predicted nor true spans.

    Raises:
        ValueError: if the numbers of sentences differ.

    References:
        Sang and De Meulder, *Introduction to the CoNLL-2003 shared task*, 2003, section
        2.3. https://aclanthology.org/W03-0419
    """
    counts = span_counts(predicted, gold).values()
    total = SpanCounts(*map(sum, zip((0, 0, 0), *counts, strict=True)))
    return float(total.f1)


def span_counts(
    predicted: Sequence[Iterable[Span]], gold: Sequence[Iterable[Span]]
) -> dict[Hashable, SpanCounts]:
    r"""Counts of correct, predicted and true spans of each type.

    .. math:: \sum_n |P_{na} \cap G_{na}|, \quad \sum_n |P_{na}|, \quad
              \sum_n |G_{na}|.

    Args:
        predicted: for each sentence the set of its spans.
        gold: the true ones, in the same order.

    Returns:
        `{type: SpanCounts}` for every type that occurs, in the order in which they do.

    Raises:
        ValueError: if the numbers of sentences differ.

    References:
        Sang and De Meulder, *Introduction to the CoNLL-2003 shared task*, 2003, section
        2.3. https://aclanthology.org/W03-0419
    """
    if len(predicted) != len(gold):
        raise ValueError(
            "predicted and gold must have one entry for each sentence, got "
            f"{len(predicted)} and {len(gold)}."
        )
    counts: dict[Hashable, list[int]] = {}
    for found, true in zip(predicted, gold, strict=True):
        found, true = set(map(tuple, found)), set(map(tuple, true))
        for column, spans in enumerate((found & true, found, true)):
            for span in sorted(spans, key=lambda span: span[1:]):
                counts.setdefault(span[0], [0, 0, 0])[column] += 1
    return {kind: SpanCounts(*row) for kind, row in counts.items()}


def score_counts(
    scores: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    threshold: jax.typing.ArrayLike = 0.0,
    where: jax.typing.ArrayLike | None = None,
) -> SpanCounts:
    r"""Counts of correct, predicted and true spans of each type, from the scores.

    .. math:: \sum [s > \theta]\, y, \quad \sum [s > \theta], \quad \sum y.

    The same counts as from decoded spans, under `jit` and without leaving the device.

    Args:
        scores: `[batch, types, n, n]`.
        labels: boolean or 0 and 1, the same shape.
        threshold: :math:`\theta`, may be traced.
        where: boolean, broadcasts to the shape of the scores; the cells that count.

    Returns:
        Counts `[types]`, int32; those of batches add up.

    Raises:
        TypeError: if `where` is not boolean.
        ValueError: if the shapes do not fit.

    References:
        Sang and De Meulder, *Introduction to the CoNLL-2003 shared task*, 2003, section
        2.3. https://aclanthology.org/W03-0419
    """
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    if scores.ndim != 4 or scores.shape[2] != scores.shape[3]:
        raise ValueError(f"scores must be [batch, types, n, n], got {scores.shape}.")
    require_shape("labels", labels, scores.shape)
    keep = broadcast_mask(where, scores.shape)
    keep &= span_mask(jnp.ones((1, 1, scores.shape[-1]), bool))
    wide = trees.wide_dtype(scores.dtype)  # else 0.3 is not above 0.3 in float16
    is_found = keep & (scores.astype(wide) > jnp.asarray(threshold, wide))
    is_true = keep & labels.astype(bool)
    cells = is_found & is_true, is_found, is_true
    return SpanCounts(*(jnp.sum(x, (0, 2, 3), dtype=jnp.int32) for x in cells))


def _ratio(part, whole):
    """The quotient, and 1 of nothing."""
    if isinstance(whole, int):
        return part / whole if whole else 1.0
    one = jnp.ones((), jnp.int32)
    return jnp.where(whole == 0, 1.0, part / jnp.maximum(whole, one))


def _checked(spans, num_types, length):
    """The spans, each of which must fit into the sentence."""
    for kind, start, end in map(to_integers, spans):
        if not (0 <= kind < num_types and 0 <= start <= end < length):
            raise ValueError(
                f"span {(kind, start, end)!r} is not within {num_types} types and "
                f"{length} tokens; the end is inclusive."
            )
        yield kind, start, end
