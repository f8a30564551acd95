"""Texts and labels of a config as arrays, and which rows keep their label."""

from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
import numpy as np

from expkit import text
from expkit.datasets.errors import listed


def encode_rows(
    config: ml_collections.ConfigDict,
    tokenizer: text.Tokenizer,
    rows: Mapping[str, np.ndarray],
    split: str,
) -> dict[str, np.ndarray]:
    """Turns the texts of a split into ids.

    Args:
        config: has `text_columns` (one or two), `label_column` and `max_length`.
        tokenizer: of the encoder.
        rows: columns of the split.
        split: its name, for messages.

    Returns:
        `ids`, `types` if there are two columns, and `label`.

    Raises:
        ValueError: if a column is missing or holds no texts, all texts of a split are
            empty, or a label is negative, not finite or no number.
    """
    columns = tuple(config.text_columns)
    if not 1 <= len(columns) <= 2:
        raise ValueError(f"text_columns must be one or two, got {columns!r}.")
    for column in (*columns, config.label_column):
        if column not in rows:
            raise ValueError(
                f"{config.dataset!r} has the columns {listed(rows)}, not "
                f"{column!r}: set text_columns and label_column."
            )
    for column in columns:
        require_texts(rows[column], column, config.dataset)
    if not any(text.strip() for text in rows[columns[0]]):
        raise ValueError(f"all texts of {split!r} of {config.dataset!r} are empty.")
    length = {"max_length": config.max_length, "lengths": None}
    label = _numbers(rows[config.label_column], config.label_column)
    if label.dtype.kind == "f":
        is_wrong = ~(np.abs(label) <= np.finfo(np.float32).max)
    else:
        is_wrong = (label < 0) | (label > np.iinfo(np.int32).max)
    if is_wrong.any():
        raise ValueError(
            f"label {label[is_wrong][0]} in {split!r} of {config.dataset!r} is out "
            "of range: labels are 0, 1, ... or finite numbers with a point, as -1.0."
        )
    label = label.astype(np.float32 if label.dtype.kind == "f" else np.int32)
    if len(columns) == 1:
        ids, _ = tokenizer.encode(rows[columns[0]], **length)
        return {"ids": ids, "label": label}
    ids, _, types = tokenizer.encode_pairs(*(rows[c] for c in columns), **length)
    return {"ids": ids, "types": types, "label": label}


def require_texts(values: Iterable[Any], column: str, source: str) -> None:
    """Checks that a column can be tokenized.

    Args:
        values: of the column.
        column: its name.
        source: name of the data, for the message.

    Raises:
        ValueError: if one is no string; the message has the first.
    """
    for value in values:
        if not isinstance(value, str):
            raise ValueError(
                f"column {column!r} of {source!r} holds {value!r:.60}, which is no "
                "text: name another."
            )


def choose_labelled(
    labels: np.ndarray, num_labels: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the rows that keep their label.

    Args:
        labels: classes or numbers [n]; classes keep their shares.
        num_labels: how many rows, or 0 for all.
        seed: of the draw.

    Returns:
        Indices of the rows drawn, and of the others.

    Raises:
        ValueError: if there are not so many rows, or fewer are asked for than there are
            classes.
    """
    everything = np.arange(len(labels))
    if num_labels in (0, len(labels)):
        return everything, everything[:0]
    is_classes = labels.dtype.kind != "f"
    least = len(np.unique(labels)) if is_classes else 1
    if not least <= num_labels <= len(labels) - least:
        raise ValueError(
            f"num_labels must be 0, {least}..{len(labels) - least} or {len(labels)}, "
            f"got {num_labels!r}."
        )
    from sklearn.model_selection import train_test_split  # takes a second to load

    drawn, rest = train_test_split(
        everything,
        train_size=num_labels,
        stratify=labels if is_classes else None,
        random_state=seed,
    )
    return np.sort(drawn), np.sort(rest)


def _numbers(labels: np.ndarray, column: str) -> np.ndarray:
    """Labels as numbers: files hold them as texts."""
    labels = np.asarray(labels)
    if labels.dtype != object:
        return labels
    wrong = None
    for kind in (int, float):
        numbers = []
        for wrong in labels:
            try:
                numbers.append(kind(_without_underscore(wrong)))
            except (TypeError, ValueError):
                break
        else:
            return np.array(numbers, object if kind is int else float)
    raise ValueError(
        f"column {column!r} has labels that are no numbers: {wrong!r:.60}; number "
        "classes from 0, or set label_column."
    )


def _without_underscore(label: Any) -> Any:
    """The label, unless Python alone would read it as a number."""
    if "_" in str(label):
        raise ValueError
    return label
