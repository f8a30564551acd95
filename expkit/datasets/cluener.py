"""JSON lines with spans as CLUENER has them, a label of mentions by type.

    {"text": "Ada met Bob.", "label": {"name": {"Ada": [[0, 2]], "Bob": [[8, 10]]}}}

Places are (start, end) in characters of the text, end inclusive. A mention is there for
the reader, and to tell whether the places are right.

References:
    Xu et al., *CLUENER2020: Fine-grained Named Entity Recognition Dataset and Benchmark
    for Chinese*, 2020. https://arxiv.org/abs/2001.04351
"""

from collections.abc import Iterator, Mapping
from typing import Any

from expkit.datasets.conll import Span
from expkit.datasets.errors import DataError, shorten

_SHAPE = "write {type: {mention: [[start, end], ...]}}, ends inclusive"


def has_mentions(record: Mapping[str, Any]) -> bool:
    """Tells objects of this format from others.

    Args:
        record: the object.

    Returns:
        True if it has a text, and a label that is an object.
    """
    return isinstance(record.get("text"), str) and isinstance(record.get("label"), dict)


def with_spans(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Turns the label of an object into spans.

    Args:
        record: the object.
        place: file and line, for messages.

    Returns:
        The object with `spans` in place of `label`: a tuple of (type, start, end), in
        their order in the text, an outer one before those inside it.

    Raises:
        DataError: if the label is not one of mentions, a place lies outside the text,
            or the text there is not the mention.
    """
    if not has_mentions(record):
        raise DataError(
            f"{place}: {shorten(dict(record))} has no text with a label of mentions, "
            f"as rows before have; {_SHAPE}, or {{}} for none."
        )
    text, label = record["text"], record["label"]
    spans = set(_spans(text, label, f"{place}, column 'label'"))
    ordered = sorted(spans, key=lambda span: (span[1], -span[2], span[0]))
    others = {key: value for key, value in record.items() if key != "label"}
    return others | {"spans": tuple(ordered)}


def _spans(text: str, label: dict[str, Any], place: str) -> Iterator[Span]:
    for kind, mentions in label.items():
        if not _is_text(kind) or not isinstance(mentions, dict):
            raise DataError(
                f"{place}: {shorten({kind: mentions})} has no type or no mentions; "
                f"{_SHAPE}."
            )
        for mention, places in mentions.items():
            if not isinstance(places, list) or not places:
                raise _not_a_place(places, mention, place)
            for found in places:
                yield (kind, *_checked(found, mention, text, place))


def _is_text(kind: str) -> bool:
    """Tells names from nothing and from halves of surrogate pairs."""
    return bool(kind) and kind == kind.encode(errors="replace").decode()


def _checked(found: Any, mention: str, text: str, place: str) -> tuple[int, int]:
    is_pair = isinstance(found, list) and [type(i) for i in found] == [int, int]
    if not is_pair:
        raise _not_a_place(found, mention, place)
    start, end = found
    if not 0 <= start <= end < len(text):
        raise DataError(
            f"{place}: {shorten(found)} of the mention {shorten(mention)} lies outside "
            f"the text of {len(text)} characters; correct it, counting from 0, end "
            "inclusive."
        )
    if text[start : end + 1] != mention:
        raise DataError(
            f"{place}: the text at {found} is {shorten(text[start : end + 1])}, not "
            f"{shorten(mention)}; correct the place or the mention, end inclusive."
        )
    return start, end


def _not_a_place(found: Any, mention: str, place: str) -> DataError:
    return DataError(
        f"{place}: {shorten(found)} is no place of the mention {shorten(mention)}; "
        f"{_SHAPE}."
    )
