"""Which columns of a source are wanted, under which keys, and as which type."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from expkit.datasets.errors import DataError, listed, shorten, suggestion

MAX_COLUMNS = 2**16
DTYPES = {"str": object, "int": np.int64, "float": np.float64}


class Column(NamedTuple):
    """Attributes: key: ours; name: the source's; kind: "str", "int", "float" or ""."""

    key: str
    name: str
    kind: str


def parse_columns(columns: Mapping[str, str] | None) -> list[Column]:
    """Reads the mapping from our keys to columns of a source.

    Args:
        columns: such as `{"text_1": "sentence1", "score": "score:float"}`. What stands
            before a last `:str`, `:int` or `:float` is the column.

    Returns:
        One `Column` for each key; empty when nothing is selected.

    Raises:
        ValueError: if a value is not a text.
    """
    parsed = []
    for key, spec in dict(columns or {}).items():
        if not isinstance(spec, str) or not spec:
            raise ValueError(
                f"columns[{shorten(key)}] must be a column name such as 'score' or "
                f"'score:float', got {shorten(spec)}."
            )
        name, _, kind = spec.rpartition(":")
        has_kind = kind in DTYPES and bool(name)
        parsed.append(Column(key, name, kind) if has_kind else Column(key, spec, ""))
    return parsed


def choose(wanted: Sequence[Column], names: Iterable[str], place: str) -> list[Column]:
    """Checks the wanted columns against those that exist.

    Args:
        wanted: parsed columns; empty for all of them, under their own names.
        names: the columns of the source.
        place: where the columns come from, for messages.

    Returns:
        The columns to read.

    Raises:
        DataError: if a wanted column does not exist, or there are more than
            `MAX_COLUMNS`.
    """
    names = list(names)
    if len(names) > MAX_COLUMNS:
        raise DataError(f"{place}: more than {MAX_COLUMNS:,} columns; remove some.")
    known = set(names)
    for column in wanted:
        if column.name not in known:
            raise DataError(
                f"{place}: no column {shorten(column.name)} (wanted for "
                f"{shorten(column.key)}) among {listed(names)}; set columns"
                f"{suggestion(column.name, names)}"
            )
    return list(wanted) or [Column(name, name, "") for name in names]


def convert(value: Any, column: Column, place: str) -> Any:
    """Turns a cell of a text file or a value of a JSON object into its type.

    Args:
        value: what the file holds.
        column: its column.
        place: file and line, for messages.

    Returns:
        A str, an int that fits 64 bits, or a finite float.

    Raises:
        DataError: if the value is not of the type.
    """
    kind = column.kind or "str"
    try:
        result = _CONVERTERS[kind](value)
    except (ValueError, TypeError, OverflowError):
        articles = {"str": "a text", "int": "a whole number", "float": "a number"}
        remedy = (
            "correct the file, or read the column as another type"
            if column.kind
            else "remove the column, or name the others in columns"
        )
        raise DataError(
            f"{place}, column {shorten(column.name)}: {shorten(value)} is not "
            f"{articles[kind]}; {remedy}."
        ) from None
    return result


def _to_str(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    text = str(value)
    text.encode("utf-8")  # half of a surrogate pair raises
    return text


def _to_int(value: Any) -> int:
    if isinstance(value, bool | float) or "_" in str(value):
        raise TypeError
    return int(np.int64(int(value)))


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or "_" in str(value) or not math.isfinite(float(value)):
        raise TypeError
    return float(value)


_CONVERTERS = {"str": _to_str, "int": _to_int, "float": _to_float}
