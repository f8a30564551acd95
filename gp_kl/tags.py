r"""Spans as BIO tags, one for each token, and back.

Ramshaw and Marcus (1995). Tag 0 is outside of all spans; for type a, 1 + 2a is the
first token of a span and 2 + 2a a further one. Tags cannot hold spans that overlap,
which is what the span scores of Global Pointer are for. Example::

    >>> spans_to_bio([(0, 1, 2), (1, 3, 3)], length=5).tolist()
    [0, 1, 2, 3, 0]
    >>> bio_to_spans([0, 1, 2, 3, 0])
    [(0, 1, 2), (1, 3, 3)]
"""

import operator
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from expkit.arguments import require_count


def spans_to_bio(spans: Iterable[tuple[int, int, int]], length: int) -> np.ndarray:
    r"""Tags of a sentence from its spans.

    .. math:: y_i = 1 + 2a \text{ at the start of a span of type } a, \quad
              2 + 2a \text{ within}, \quad 0 \text{ elsewhere}.

    Args:
        spans: `(type, start, end)` with integer types and inclusive ends.
        length: n, of the sentence with its padding.

    Returns:
        int32 `[n]`.

    Raises:
        TypeError: if a span is not three integers, or `length` no integer.
        ValueError: if a span does not fit, two of them overlap, or `length` is
            negative.

    References:
        Ramshaw and Marcus, *Text Chunking using Transformation-Based Learning*, 1995.
        https://aclanthology.org/W95-0107
    """
    tags = np.zeros(require_count("length", length, smallest=0), np.int32)
    for kind, start, end in map(to_integers, spans):
        if not (kind >= 0 and 0 <= start <= end < length):
            raise ValueError(
                f"span {(kind, start, end)!r} is not within {length} tokens; the end "
                "is inclusive."
            )
        if tags[start : end + 1].any():
            raise ValueError(
                f"span {(kind, start, end)!r} overlaps another; tags cannot hold both."
            )
        tags[start] = 1 + 2 * kind
        tags[start + 1 : end + 1] = 2 + 2 * kind
    return tags


def bio_to_spans(tags: jax.typing.ArrayLike) -> list[tuple[int, int, int]]:
    r"""Spans of a sentence from its tags.

    .. math:: (a, i, j): y_i = 1 + 2a,\ y_{i+1} = \ldots = y_j = 2 + 2a.

    A tag "further" that continues nothing of its type starts a span, as in the
    evaluation of the CoNLL shared tasks.

    Args:
        tags: integers `[n]`, at least 0.

    Returns:
        `(type, start, end)` of Python integers in the order of the sentence; end is
        inclusive.

    Raises:
        TypeError: if they are no integers.
        ValueError: if they have another shape or are negative.

    References:
        Ramshaw and Marcus, *Text Chunking using Transformation-Based Learning*, 1995.
        https://aclanthology.org/W95-0107
        Sang and De Meulder, *Introduction to the CoNLL-2003 shared task*, 2003.
        https://aclanthology.org/W03-0419
    """
    array = np.asarray(tags)
    if array.ndim != 1 or (array < 0).any():
        raise ValueError(
            f"tags must be [n] and at least 0, got shape {array.shape}"
            f"{' with negative ones' if (array < 0).any() else ''}."
        )
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"tags must be integers, got {array.dtype}.")
    kinds = np.where(array > 0, (array - 1) // 2, -1)
    is_first = (array > 0) & (array % 2 == 1)
    changes = np.diff(kinds, prepend=-1) != 0
    starts = np.flatnonzero((array > 0) & (is_first | changes))
    ends_here = np.append((is_first | changes)[1:], True)
    ends = np.flatnonzero((array > 0) & ends_here)
    rows = zip(kinds[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
    return list(rows)


def to_integers(span: Sequence[int]) -> tuple[int, int, int]:
    """A span of Python integers, for whatever counts as an integer.

    Args:
        span: `(type, start, end)`.

    Returns:
        The same numbers.

    Raises:
        TypeError: if one of them is no integer, or there are not three.
    """
    try:
        kind, start, end = map(operator.index, span)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"a span must be three integers (type, start, end), got {span!r}."
        ) from error
    return kind, start, end
