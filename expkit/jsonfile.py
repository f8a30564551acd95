"""JSON files that are never half written and never hold `NaN` or `Infinity`.

write(path, {"loss": float("nan")})   # the file reads {"loss": null}
read(path)                            # {"loss": None}
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
        default: returned when the file is missing or is not JSON.

    Returns:
        The parsed value or `default`.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last: nested too deep
        return default
