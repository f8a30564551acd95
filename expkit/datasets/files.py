"""`file:PATH`: tables and texts in plain files, read with the standard library only.

The suffix decides: `.csv` (quoted, with a header), `.tsv` (never quoted, with a
header), `.jsonl` or `.json` (an object a line; labels of mentions become spans, see
`expkit.datasets.cluener`), `.txt` (a text a line, under the key `text`; when `columns`
names other columns, a `.txt` is read like a `.tsv`) and `.conll` (see
`expkit.datasets.conll`), each also with `.gz` after it. Files are UTF-8. Blank lines
are skipped, except in a `.txt` of texts. Limits on the size: `expkit.datasets.lines`.
"""

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from expkit.datasets.columns import DTYPES, parse_columns
from expkit.datasets.conll import read_conll
from expkit.datasets.errors import DataError, shorten, suggestion
from expkit.datasets.tables import read_csv, read_jsonl, read_tsv, read_txt

READERS = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".conll": read_conll,
    ".json": read_jsonl,
}


def read_file(
    pattern: str, split: str, columns: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Reads the file of one split.

    Args:
        pattern: a path with `{split}` in it.
        split: name of the split, without a slice.
        columns: our key to the file's column and type, such as
            `{"text_1": "sentence1", "score": "score:float"}`; None for all as texts.

    Returns:
        An array for each key: int64, float64, or objects (str, or lists).

    Raises:
        DataError: if the file is missing or anything in it is malformed.
    """
    path = find_file(pattern, split)
    wanted = parse_columns(columns)
    rows = READERS[_suffix(path)](path, wanted)
    if not any(rows.values()):
        raise DataError(f"{path}: holds no rows; put data there or use another file.")
    kinds = {column.key: column.kind for column in wanted}
    return {
        key: np.fromiter(values, DTYPES[kinds.get(key) or "str"], len(values))
        for key, values in rows.items()
    }


def find_file(pattern: str, split: str) -> Path:
    """Puts the split into the path and checks that the file exists.

    Args:
        pattern: a path with `{split}` in it.
        split: name of the split.

    Returns:
        The path of the file.

    Raises:
        DataError: if the pattern is unusable or there is no such file; the message
            lists the splits that exist.
    """
    if "{split}" not in pattern:
        raise DataError(
            f"{shorten(f'file:{pattern}', 200)} must contain {{split}}, such as "
            "'file:data/{split}.csv'."
        )
    try:
        path = Path(pattern.replace("{split}", split)).expanduser()
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:  # too long, or of an unknown user
        raise DataError(
            f"{shorten(f'file:{pattern}', 200)} cannot be looked up ({_reason(error)}) "
            f"for the split {shorten(split)}; use another path."
        ) from error
    if _suffix(path) not in READERS:
        raise DataError(
            f"{path}: its format is not known; the name must end in one of "
            f"{', '.join(READERS)}, or in one of them and .gz."
        )
    if is_file:
        return path
    found = _existing_splits(pattern)
    listed = ", ".join(f"{name!r} ({file})" for name, file in found.items())
    raise DataError(
        f"{path}: no such file, so there is no split {split!r}; "
        + (f"found {listed}" if found else "no other split matches the path either")
        + suggestion(split, found)
    )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).rstrip(".")


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()


def _existing_splits(pattern: str) -> dict[str, str]:
    """Returns the files that the pattern matches, by the split that they are of."""
    # Not of pathlib, which raises where `{split}` is in the name of a user.
    parts = str(Path(os.path.expanduser(pattern))).split("{split}")
    first, second, *others = (re.escape(part) for part in parts)
    expression = r"(?P=split)".join([first + r"(?P<split>[\w.-]+)" + second, *others])
    paths = sorted(glob.glob("*".join(glob.escape(part) for part in parts)))
    matches = (re.fullmatch(expression, path) for path in paths)
    return {match["split"]: match[0] for match in matches if match}
