"""JSON files that are never half written and never hold `NaN` or `Infinity`.

Values take up to 34 times the size of their file in memory, so a file of more than
`MAX_BYTES` is not read.

write(path, {"loss": float("nan")})   # the file reads {"loss": null}
read(path)                            # {"loss": None}
"""

import json
import math
import os
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_BYTES = 2**24


class TooLargeError(ValueError):
    """A file of more bytes than this program reads; one line that names it."""


def plain(value: Any) -> Any:
    """A value as JSON holds it: the same before writing and after reading.

    Args:
        value: numbers, strings, None, mappings, sequences (ranges and sets too), paths,
            arrays and array scalars of any library that has `tolist`.

    Returns:
        The value in dicts with string keys, lists, str, bool, int, float and None;
        numbers that are not finite become None.

    Raises:
        TypeError: if a part of the value is of another kind.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(v) for v in sorted(value)]
    if isinstance(value, (list, tuple, range)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{value!r} ({type(value).__name__}) has no JSON form.")


def write_text(path: Path, text: str) -> None:
    """Puts a text in a file in one move: a reader sees the old text or the new one.

    Args:
        path: the file; its folder is made when missing.
        text: the whole content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Reads a UTF-8 file that has no more than some number of bytes.

    Args:
        path: the file.
        most: how many bytes it may have.

    Returns:
        Its text, with `\\n` for every kind of line end.

    Raises:
        TooLargeError: if it has more; of those, no more than `most` were read.
        OSError: if it cannot be read.
        UnicodeDecodeError: if it is not UTF-8.
    """
    size = path.stat().st_size
    if size <= most:
        with path.open(encoding="utf-8") as file:
            text = file.read(most + 1)  # a device has more than its size says
        if len(text) <= most:
            return text
    size = max(size, most + 1)
    raise TooLargeError(
        f"{path} has {size:,} bytes, more than the limit of {most:,}; use another file."
    )


def write(path: Path, value: Any) -> None:
    """Writes `plain(value)` as indented JSON, atomically.

    Args:
        path: the file; its folder is made when missing.
        value: anything `plain` accepts.

    Raises:
        TypeError: if a part of the value has no JSON form.
    """
    text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read(path: Path, default: Any = None) -> Any:
    """The value of a JSON file, or `default` where there is no readable one.

    Args:
        path: the file.
        default: returned when the file is missing, is not JSON, has more than
            `MAX_BYTES`, or holds another kind of value than this one; None takes every
            kind.

    Returns:
        The parsed value or `default`.
    """
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):  # the last: nested too deep
        return default
    return value if default is None or isinstance(value, type(default)) else default


def has(value: Any, kinds: Mapping[str, type | types.UnionType]) -> bool:
    """Whether a value read from a file is an object with certain fields.

    Args:
        value: as `read` returns it.
        kinds: what the fields have to be, by their names.

    Returns:
        True or False; False where a field is missing.
    """
    return isinstance(value, dict) and all(
        name in value and isinstance(value[name], kind) for name, kind in kinds.items()
    )


def read_objects(
    path: Path, kinds: Mapping[str, type | types.UnionType]
) -> list[dict[str, Any]]:
    """The objects of a JSON list that are whole; what is damaged is left out.

    Args:
        path: the file; it need not exist.
        kinds: as for `has`.

    Returns:
        The objects with all these fields, in their order.
    """
    return [value for value in read(path, []) if has(value, kinds)]
