"""Rows of csv, tsv, jsonl and plain text files as one list for each column."""

import collections
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from expkit.datasets import lines
from expkit.datasets.cluener import has_mentions, with_spans
from expkit.datasets.columns import Column, choose, convert
from expkit.datasets.errors import DataError, shorten


def read_csv(path: Path, wanted: Sequence[Column]) -> dict[str, list]:
    """Reads comma-separated values with a header; `"` quotes a field.

    Args:
        path: the file.
        wanted: the columns to keep; empty for all.

    Returns:
        The values of each key.

    Raises:
        DataError: if anything is malformed.
    """
    return _read_table(path, wanted, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def read_tsv(path: Path, wanted: Sequence[Column]) -> dict[str, list]:
    """Reads tab-separated values with a header; a quote is a character like others.

    Args:
        path: the file.
        wanted: the columns to keep; empty for all.

    Returns:
        The values of each key.

    Raises:
        DataError: if anything is malformed.
    """
    return _read_table(path, wanted, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_table(path: Path, wanted: Sequence[Column], **dialect: Any) -> dict:
    records = _records(path, **dialect)
    number, header = next(records, (1, []))
    place = f"{path}, line {number}"
    if not header:
        raise DataError(f"{path}: is empty; it needs a header and rows.")
    columns = choose(wanted, header, place)
    if len(set(header)) < len(header):
        counts = collections.Counter(header)
        twice = next(name for name in header if counts[name] > 1)
        raise DataError(
            f"{place}: two columns are called {shorten(twice)}; rename one."
        )
    places = {name: i for i, name in enumerate(header)}
    index = {column.key: places[column.name] for column in columns}
    rows = {column.key: [] for column in columns}
    for count, (number, record) in enumerate(records, start=1):
        place = f"{path}, line {number}"
        lines.check_values(count * len(columns), place)
        if len(record) != len(header):
            raise DataError(
                f"{place}: {len(record)} fields where the header has {len(header)}: "
                f"{shorten(record)}; quote or remove what separates too much."
            )
        for column in columns:
            value = record[index[column.key]]
            rows[column.key].append(convert(value, column, place))
    return rows


def _records(path: Path, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields each record with the line where it starts, leaving out blank lines."""
    texts = (line for _, line in lines.read_lines(path))
    reader = csv.reader(texts, strict=True, **dialect)
    while True:
        start = reader.line_num + 1
        previous = csv.field_size_limit(lines.MAX_LINE)
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}, line {start}: {error}; correct the quotes or line ends."
            ) from error
        finally:
            csv.field_size_limit(previous)
        if record is None:
            return
        if record:
            yield start, record


def read_txt(path: Path, wanted: Sequence[Column]) -> dict[str, list]:
    """Reads a text for each line, blank ones too, or a table with tabs.

    Args:
        path: the file.
        wanted: empty, or our key for the one column `text`; with any other column the
            file is read as tab-separated values with a header.

    Returns:
        The values of each key.

    Raises:
        DataError: if anything is malformed.
    """
    if any(column.name != "text" for column in wanted):
        return read_tsv(path, wanted)
    columns = choose(wanted, ["text"], str(path))
    rows = {column.key: [] for column in columns}
    for number, line in lines.read_lines(path):
        place = f"{path}, line {number}"
        lines.check_values(number * len(columns), place)
        for column in columns:
            rows[column.key].append(convert(line.rstrip("\r\n"), column, place))
    return rows


def read_jsonl(path: Path, wanted: Sequence[Column]) -> dict[str, list]:
    """Reads a JSON object for each line; the first one names the columns.

    Args:
        path: the file.
        wanted: the columns to keep; empty for all of texts and numbers in the first
            row, and then all rows have the same. Lists and objects are left out.

    Returns:
        The values of each key. A `label` of mentions becomes the column `spans`; see
        `expkit.datasets.cluener`.

    Raises:
        DataError: if anything is malformed.
    """
    columns: list[Column] = []
    names: set[str] = set()
    rows: dict[str, list] = {}
    has_spans = False
    count = 0
    for number, line in lines.read_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        record = _parse_object(line, place)
        has_spans = has_spans or has_mentions(record)
        if has_spans:
            record = with_spans(record, place)
        if not wanted:
            record = _without_nested(record, names)
        if not rows:
            columns = choose(wanted, record, place)
            rows = {column.key: [] for column in columns}
            names = {column.name for column in columns}
        if not wanted and record.keys() - names:
            extra = min(record.keys() - names)
            raise DataError(
                f"{place}: column {shorten(extra)} is not in the first row; remove "
                "it, or name the others in columns."
            )
        choose(columns, record, place)
        for column in columns:
            value = record[column.name]
            is_spans = isinstance(value, tuple) and not column.kind
            value = list(value) if is_spans else convert(value, column, place)
            rows[column.key].append(value)
            count += 1 + 2 * len(value) if is_spans else 1
        lines.check_values(count, place)
    return rows


def _without_nested(record: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """A record without its lists and objects, but for those of known names."""
    flat = {
        key: value
        for key, value in record.items()
        if key in names or not isinstance(value, list | dict)
    }
    return flat or record


def _parse_object(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: {shorten(line.strip())} is not valid JSON ({error}); write one "
            "object a line."
        ) from error
    if not isinstance(record, dict) or not record:
        raise DataError(
            f"{place}: {shorten(line.strip())} is not a JSON object with columns; "
            "write one object a line."
        )
    return record


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key occurs twice")
    return record
