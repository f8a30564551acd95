"""Split names with slices: `train`, `test[:8000]`, `train[10%:]`, `train+test`.

The grammar and the rounding are those of TFDS, so that a slice means the same rows
whether they come from TFDS, from a file or from a generator. The unit `shard` and the
split `all` are left out.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from expkit.datasets.errors import shorten, suggestion

_PART = re.compile(
    r"(?P<name>[\w.-]+)"
    r"(\[(?P<start>-?(\d_?){0,17}\d%?)?:(?P<stop>-?(\d_?){0,17}\d%?)?\])?"
)


class Rows(NamedTuple):
    """Attributes: name of the split; start, stop: its rows, 0 <= start < stop."""

    name: str
    start: int
    stop: int


def _parts(spec: str) -> list[re.Match[str]]:
    parts = [_PART.fullmatch(part.strip()) for part in spec.split("+")]
    if not all(parts):
        raise ValueError(
            f"split {shorten(spec)} is not understood: write a name, or a slice of one "
            "such as 'train[:8000]', 'train[10%:]' or 'train[:90%]+test'."
        )
    return [part for part in parts if part]


def split_names(spec: str) -> list[str]:
    """Returns the names that a split specification mentions.

    Args:
        spec: such as `"train[:80%]+test"`.

    Returns:
        The names without slices, each once, in order.

    Raises:
        ValueError: if the specification cannot be parsed.
    """
    return list(dict.fromkeys(part["name"] for part in _parts(spec)))


def resolve_split(spec: str, sizes: Mapping[str, int], source: str) -> list[Rows]:
    """Turns a split specification into row numbers.

    Args:
        spec: such as `"train[:80%]+test"`.
        sizes: number of rows of every split that exists.
        source: name of the data source, for messages.

    Returns:
        One `Rows` for each part, in order.

    Raises:
        ValueError: if the specification cannot be parsed, names an unknown split, or
            selects no rows or rows that do not exist.
    """
    resolved = []
    for part in _parts(spec):
        name = part["name"]
        if name not in sizes:
            known = ", ".join(f"{key} ({n:,} rows)" for key, n in sizes.items())
            raise ValueError(
                f"unknown split {shorten(name)} of {source!r}, which has {known}"
                f"{suggestion(name, sizes)}"
            )
        size = sizes[name]
        start = _bound(part["start"], size, 0)
        stop = _bound(part["stop"], size, size)
        # Rounding could bring a percentage beyond 100 back to the number of rows.
        percents = re.findall(r"(\d+)%", part[0].replace("_", ""))
        is_inside = 0 <= start < stop <= size and all(int(p) <= 100 for p in percents)
        if not is_inside:
            raise ValueError(
                f"split {shorten(part[0])} of {source!r} selects rows {start} to "
                f"{stop}, but {name} has rows 0 to {size}: choose a slice inside them."
            )
        resolved.append(Rows(name, start, stop))
    return resolved


def _bound(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    number = int(text.removesuffix("%"))
    value = round(number * size / 100.0) if text.endswith("%") else number
    return value + size if text.startswith("-") else value
