"""How sources with spans are stored by TFDS."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from expkit.datasets.conll import Span

_FIELDS = ("type", "start", "end")


def features(types: Sequence[str]) -> tfds.features.FeaturesDict:
    """Describes rows of a text and its spans.

    Args:
        types: names of the types of spans.

    Returns:
        The keys `text` and `spans`, a sequence of `type`, `start` and inclusive `end`.
    """
    span = {
        "type": tfds.features.ClassLabel(names=list(types)),
        "start": np.int32,
        "end": np.int32,
    }
    return tfds.features.FeaturesDict(
        {"text": tfds.features.Text(), "spans": tfds.features.Sequence(span)}
    )


def to_row(text: str, spans: Iterable[Span]) -> dict[str, Any]:
    """Turns a text and its spans into what these features take.

    Args:
        text: the text.
        spans: as (type, start, end).

    Returns:
        A row.
    """
    fields = [dict(zip(_FIELDS, span, strict=True)) for span in spans]
    return {"text": text, "spans": fields}
