"""CoNLL files: a token and its BIO tag a line, a blank line between sentences.

Fields are separated by tabs, or by spaces when a line has no tab; other white space, as
the no-break space in a number, is a part of them. The token is the first field and the
tag the last one unless `columns` gives other positions, counted from 0:
`{"tokens": "0", "tags": "3"}`. Lines that start with `-DOCSTART-` are left out.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from expkit.datasets.columns import Column
from expkit.datasets.errors import DataError, shorten
from expkit.datasets.lines import check_values, read_lines

Span = tuple[str, int, int]


def read_conll(path: Path, wanted: Sequence[Column]) -> dict[str, list]:
    """Reads sentences with their entities.

    Args:
        path: the file.
        wanted: positions of `tokens` and `tags`, when they are not first and last.

    Returns:
        For each sentence: `tokens` and `tags`, lists of str; `text`, the tokens joined
        by single spaces; `spans`, a list of (type, start, end) in characters of `text`,
        end inclusive.

    Raises:
        DataError: if a line has too few fields, an empty token or a tag that is not
            BIO: `O`, `B-x`, or `I-x` after `B-x` or `I-x`.
    """
    positions = _positions(wanted)
    rows: dict[str, list] = {"tokens": [], "tags": [], "text": [], "spans": []}
    for sentence in _sentences(path, positions):
        tokens, tags = (list(field) for field in zip(*sentence, strict=True))
        rows["tokens"].append(tokens)
        rows["tags"].append(tags)
        rows["text"].append(" ".join(tokens))
        rows["spans"].append(spans_of(tokens, tags))
    return rows


def spans_of(tokens: Sequence[str], tags: Sequence[str]) -> list[Span]:
    """Turns BIO tags into spans.

    Args:
        tokens: of one sentence.
        tags: one tag a token. `I-x` that does not follow `B-x` or `I-x` starts a span.

    Returns:
        (type, start, end) in characters of the tokens joined by single spaces, end
        inclusive.
    """
    spans: list[Span] = []
    start, previous = 0, "O"
    for token, tag in zip(tokens, tags, strict=True):
        end = start + len(token) - 1
        if tag.startswith("I-") and previous[1:] == tag[1:]:
            kind, first, _ = spans.pop()
            spans.append((kind, first, end))
        elif tag != "O":
            spans.append((tag[2:], start, end))
        start, previous = end + 2, tag
    return spans


def is_bio(names: Collection[str]) -> bool:
    """Tells whether names of classes are BIO tags.

    Args:
        names: of the classes.

    Returns:
        True if `O` is one of them, and all others are `B-x` or `I-x`.
    """
    others = set(names) - {"O"}
    is_tag = all(name[:2] in ("B-", "I-") and len(name) > 2 for name in others)
    return "O" in names and bool(others) and is_tag


def _positions(wanted: Sequence[Column]) -> tuple[int, int]:
    positions = {"tokens": 0, "tags": -1}
    for column in wanted:
        is_number = re.fullmatch(r"-?\d{1,9}", column.name) and not column.kind
        if column.key not in positions or not is_number:
            raise DataError(
                "columns of a .conll file are {'tokens': POSITION, 'tags': POSITION} "
                f"counted from 0, got {shorten(column.key)}: {shorten(column.name)}."
            )
        positions[column.key] = int(column.name)
    return positions["tokens"], positions["tags"]


def _sentences(
    path: Path, positions: tuple[int, int]
) -> Iterator[list[tuple[str, str]]]:
    """Yields each sentence as pairs of token and checked tag."""
    sentence: list[tuple[str, str]] = []
    count = 0  # of values, see check_values
    for number, line in read_lines(path):
        line = line.rstrip("\r\n")
        if not line.strip():
            if sentence:
                yield sentence
                count += 4  # columns
            sentence = []
        elif not line.startswith("-DOCSTART-"):
            previous = sentence[-1][1] if sentence else "O"
            place = f"{path}, line {number}"
            token, tag = _token_and_tag(line, positions, previous, place)
            sentence.append((token, tag))
            count += 4 if tag.startswith("B-") else 2
            check_values(count, place)
    if sentence:
        yield sentence


def _token_and_tag(
    line: str, positions: tuple[int, int], previous: str, place: str
) -> tuple[str, str]:
    if "\r" in line:
        raise DataError(
            f"{place}: {shorten(line)} has a carriage return inside; end lines with a "
            "line feed, for instance with tr '\\r' '\\n'."
        )
    fields = line.split("\t") if "\t" in line else re.findall("[^ ]+", line)
    if len(fields) < 2 or not all(-len(fields) <= p < len(fields) for p in positions):
        raise DataError(
            f"{place}: {shorten(line)} has {len(fields)} field(s), too few for a token "
            "and a tag; separate them by a tab or a space."
        )
    token, tag = (fields[position] for position in positions)
    if not token.strip():
        raise DataError(f"{place}: the token is empty; remove the line or fill it in.")
    if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3):
        raise DataError(
            f"{place}: tag {shorten(tag)} is not BIO; write 'O', 'B-x' or 'I-x'."
        )
    if tag.startswith("I-") and previous[1:] != tag[1:]:
        raise DataError(
            f"{place}: tag {shorten(tag)} continues nothing (the tag before is "
            f"{shorten(previous)}); write {shorten('B' + tag[1:])} where a span "
            "starts."
        )
    return token, tag
