"""Texts with labelled spans as rows of token ids, and predictions as spans again.

A span is (type, start, end) in characters of its text, end inclusive, as `load` of
`expkit.data` gives them. Models work on tokens: `encode_spans` finds the tokens of each
span and cuts long texts into windows, and `to_characters` takes what a model predicts
in each window back to the characters of the whole text, where it can be compared with
all spans of the text, those included that no window could hold.

>>> tokenizer = text.load_tokenizer()
>>> rows = encode_spans(
...     tokenizer, ["Ada met Bob."], [[("name", 8, 10)]], ["name"], max_length=32
... )
>>> rows.labels.tolist(), to_characters(rows, [[(0, 1, 1)]])
([[[0, 3, 3]]], [{('name', 0, 2)}])
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from expkit import text

Span = tuple[str, int, int]


class SpanRows(NamedTuple):
    """Windows of texts with the spans in them; w windows of length n.

    Attributes:
        ids: int32 [w, n], with the special tokens of the tokenizer, padded by its
            `pad_id`.
        labels: int32 [w, k, 3], the spans of each window as (index of the type, first
            token, last token), counted in `ids`, last inclusive; padded by -1. k is the
            largest number of spans in a window, at least 1.
        row: int32 [w], the index of the text of each window, never falling.
        offsets: int32 [w, n, 2], the first and the last character of each token in its
            text; -1 on special tokens and on padding.
        types: names of the types.
        num_unaligned: spans left out because they start or end inside a token, or on
            white space that is in none.
        num_cut: spans left out because no window holds them as a whole.
    """

    ids: np.ndarray
    labels: np.ndarray
    row: np.ndarray
    offsets: np.ndarray
    types: tuple[str, ...]
    num_unaligned: int
    num_cut: int


class _Window(NamedTuple):
    row: int
    ids: list[int]
    offsets: list[tuple[int, int]]
    labels: list[tuple[int, int, int]]


def span_types(spans: Iterable[Iterable[Span]]) -> tuple[str, ...]:
    """Collects the types of spans.

    Args:
        spans: those of each text of the training split.

    Returns:
        The names in alphabetical order.

    Raises:
        ValueError: if there is no span at all.
    """
    types = tuple(sorted({kind for found in spans for kind, _, _ in found}))
    if not types:
        raise ValueError(
            "the training split has no spans, so there are no types to learn; use data "
            "with spans, or more of it."
        )
    return types


def encode_spans(
    tokenizer: text.Tokenizer,
    texts: Sequence[str] | np.ndarray,
    spans: Sequence[Iterable[Span]] | np.ndarray,
    types: Sequence[str],
    *,
    max_length: int,
    lengths: Sequence[int] | None = text.LENGTHS,
) -> SpanRows:
    """Turns texts into rows of ids, and their spans into positions of tokens.

    A text that is too long becomes several windows, each as long as it can be without
    cutting a span. Where spans that overlap leave no such place, the cut goes where it
    hits the fewest. A span that occurs twice counts once.

    Args:
        tokenizer: of the encoder.
        texts: n strings; an empty one has a window too.
        spans: the spans of each text.
        types: distinct names; the position of a name is the index of the type.
        max_length: tokens of a window at most, special ones included.
        lengths: lengths that windows may be padded to. The least that holds the longest
            one is taken, `max_length` where none below it does. None pads to
            `max_length`.

    Returns:
        The windows, those of a text one after the other.

    Raises:
        ValueError: if a span lies outside its text or has an unknown type, `types`
            repeat, the numbers of texts and spans differ, `max_length` leaves no place
            beside the special tokens, or a length is less than 1.
        TypeError: if `texts` are not strings.
    """
    room = max_length - tokenizer.num_special
    if room < 1:
        raise ValueError(
            f"max_length must be at least {tokenizer.num_special + 1}, one more than "
            f"the special tokens take, got {max_length!r}."
        )
    if len(texts) != len(spans):
        raise ValueError(f"got {len(texts)} texts and spans for {len(spans)}.")
    if len(set(types)) < len(types):
        raise ValueError(f"types must be distinct, got {list(types)!r}.")
    indices = {name: index for index, name in enumerate(types)}
    windows, num_unaligned, num_cut = [], 0, 0
    all_tokens = tokenizer.tokens(texts)
    for row, (string, tokens) in enumerate(zip(texts, all_tokens, strict=True)):
        wanted = list(dict.fromkeys(spans[row]))
        _check(wanted, string, row, indices)
        labels = _align(wanted, tokens.offsets, indices)
        pieces = _windows(row, tokens, labels, room)
        num_unaligned += len(wanted) - len(labels)
        num_cut += len(labels) - sum(len(window.labels) for window in pieces)
        windows += pieces
    longest = tokenizer.num_special + max((len(w.ids) for w in windows), default=0)
    length = text.static_length(longest, max_length, lengths)
    arrays = _arrays(windows, tokenizer, length)
    return SpanRows(*arrays, tuple(types), num_unaligned, num_cut)


def to_characters(
    rows: SpanRows, predicted: Sequence[Iterable[tuple[int, int, int]]]
) -> list[set[Span]]:
    """Takes spans of tokens back to the characters of whole texts.

    Args:
        rows: the windows.
        predicted: for each window, (index of the type, first token, last token), as in
            `rows.labels`.

    Returns:
        For each text the spans of its windows. One that starts or ends on a special
        token or on padding is left out.

    Raises:
        ValueError: if there are not as many predictions as windows.
    """
    if len(predicted) != len(rows.row):
        raise ValueError(
            f"got predictions for {len(predicted)} windows of {len(rows.row)}; predict "
            "every window, in their order."
        )
    found: list[set[Span]] = [
        set() for _ in range(rows.row[-1] + 1 if predicted else 0)
    ]
    for row, offsets, triples in zip(rows.row, rows.offsets, predicted, strict=True):
        for kind, first, last in triples:
            start, end = int(offsets[first, 0]), int(offsets[last, 1])
            if min(start, end) >= 0:
                found[row].add((rows.types[kind], start, end))
    return found


def unseen_mentions(
    train_texts: Iterable[str],
    train_spans: Iterable[Iterable[Span]],
    texts: Iterable[str],
    spans: Iterable[Iterable[Span]],
) -> list[set[Span]]:
    """Keeps the spans whose words are no mention of their type in the training texts.

    Kept of the true and of the predicted spans, they tell how well a model finds what
    it cannot know by heart.

    Args:
        train_texts: those a model learned from.
        train_spans: their true spans.
        texts: others.
        spans: true or predicted spans of these.

    Returns:
        For each text a part of its spans. Case counts: "Ada" does not make "ADA" known.
    """
    known = {
        (kind, string[start : end + 1])
        for string, found in zip(train_texts, train_spans, strict=True)
        for kind, start, end in found
    }
    return [
        {
            span
            for span in found
            if (span[0], string[span[1] : span[2] + 1]) not in known
        }
        for string, found in zip(texts, spans, strict=True)
    ]


def _check(wanted, string, row, indices) -> None:
    for kind, start, end in wanted:
        if kind not in indices:
            raise ValueError(
                f"text {row} has a span of the type {kind!r}, which is not among "
                f"{', '.join(map(repr, indices))}; leave it out or train on such ones."
            )
        if not 0 <= start <= end < len(string):
            raise ValueError(
                f"span ({kind!r}, {start}, {end}) lies outside text {row}, which has "
                f"{len(string)} characters: {string!r:.60}; the end is inclusive."
            )


def _align(wanted, offsets, indices) -> list[tuple[int, int, int]]:
    """The tokens of those spans that start and end where tokens do."""
    first, last = {}, {}
    for token, (start, stop) in enumerate(offsets):
        if start < stop:
            first.setdefault(start, token)
            last[stop - 1] = token
    return [
        (indices[kind], first[start], last[end])
        for kind, start, end in wanted
        if start in first and end in last
    ]


def _windows(row, tokens: text.Tokens, labels, room: int) -> list[_Window]:
    """Cuts the tokens of a text; labels of windows count from their first token."""
    if len(tokens.ids) <= room:
        return [_Window(row, *tokens, labels)]
    windows, start = [], 0
    while start < len(tokens.ids):
        stop = _cut(start, len(tokens.ids), room, labels)
        inside = [
            (kind, first - start, last - start)
            for kind, first, last in labels
            if start <= first and last < stop
        ]
        ids, offsets = tokens.ids[start:stop], tokens.offsets[start:stop]
        windows.append(_Window(row, ids, offsets, inside))
        start = stop
    return windows


def _cut(start: int, stop: int, room: int, labels) -> int:
    """The last place for a cut of those that hit the fewest spans."""
    if stop - start <= room:
        return stop
    hits = np.zeros(room + 1, int)  # by number of tokens before the cut
    for _, first, last in labels:
        if start <= first and last - first < room:
            hits[first - start + 1 : last - start + 1] += 1
    return start + room - int(np.argmin(hits[:0:-1]))


def _arrays(windows: Sequence[_Window], tokenizer: text.Tokenizer, length: int):
    prefix, suffix = tokenizer.special_ids
    most = max((len(window.labels) for window in windows), default=0)
    ids = np.full((len(windows), length), tokenizer.pad_id, np.int32)
    labels = np.full((len(windows), max(1, most), 3), -1, np.int32)
    offsets = np.full((len(windows), length, 2), -1, np.int32)
    for i, window in enumerate(windows):
        tokens = [*prefix, *window.ids, *suffix]
        ids[i, : len(tokens)] = tokens
        inner = slice(len(prefix), len(prefix) + len(window.ids))
        offsets[i, inner] = np.reshape(window.offsets, (-1, 2)) - [0, 1]
        if window.labels:
            shift = [0, len(prefix), len(prefix)]
            labels[i, : len(window.labels)] = np.add(window.labels, shift)
    rows = np.array([window.row for window in windows], np.int32)
    return ids, labels, rows, offsets
