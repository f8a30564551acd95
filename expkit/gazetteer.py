"""The baseline of every table of spans: look up the mentions of the training texts.

A model that loses to it has not learned more than a list of names.

>>> find_mentions(["Ada wrote."], [[("person", 0, 2)]], ["So did Ada."])
[{('person', 7, 9)}]
"""

import collections
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from expkit.labelled_spans import Span


def find_mentions(
    train_texts: Sequence[str],
    train_spans: Sequence[Iterable[Span]],
    texts: Sequence[str],
    *,
    least_share: float = 0.5,
) -> list[set[Span]]:
    """Finds the longest known mentions, from the left, none inside another.

    Args:
        train_texts: texts whose spans are known.
        train_spans: (type, start, end) of each text, end inclusive.
        texts: where to look.
        least_share: a string is a mention if at least so many of its occurrences in the
            training texts are one; the type is that of most of them.

    Returns:
        Spans of each text.
    """
    types: dict[str, collections.Counter[str]] = {}
    for text, spans in zip(train_texts, train_spans, strict=True):
        for kind, start, end in spans:
            mention = text[start : end + 1]
            types.setdefault(mention, collections.Counter())[kind] += 1
    lengths = _lengths(types)
    counts = collections.Counter(
        text[start:end]
        for text in train_texts
        for start, end in _occurrences(text, types, lengths)
    )
    names = {
        mention: kinds.most_common(1)[0][0]
        for mention, kinds in types.items()
        if kinds.total() >= least_share * counts[mention]
    }
    lengths = _lengths(names)
    return [
        {
            (names[text[start:end]], start, end - 1)
            for start, end in _occurrences(text, names, lengths)
        }
        for text in texts
    ]


def _lengths(mentions: Iterable[str]) -> dict[str, list[int]]:
    """How long mentions that start with a character are, the longest first."""
    found: dict[str, set[int]] = {}
    for mention in mentions:
        found.setdefault(mention[0], set()).add(len(mention))
    return {first: sorted(lengths, reverse=True) for first, lengths in found.items()}


def _occurrences(
    text: str, mentions: Container[str], lengths: Mapping[str, Sequence[int]]
) -> Iterator[tuple[int, int]]:
    """Yields start and stop of the longest mention at each place, from the left."""
    start = 0
    while start < len(text):
        room = len(text) - start
        stops = (start + n for n in lengths.get(text[start], ()) if n <= room)
        stop = next((stop for stop in stops if text[start:stop] in mentions), start)
        if stop > start:
            yield start, stop
        start = max(stop, start + 1)
