"""The error of every data source, and the help that its messages share."""

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """Data that cannot be used; one line with the place and the remedy."""


def shorten(value: object, limit: int = 60) -> str:
    """Returns the `repr` of a value, cut so that a message stays one line.

    Args:
        value: anything found in a file.
        limit: number of characters kept.

    Returns:
        One line of at most `limit` + 3 characters.
    """
    text = repr(value if not isinstance(value, str) else value[: 4 * limit])
    return text if len(text) <= limit else text[:limit] + "..."


def suggestion(word: str, known: Iterable[str]) -> str:
    """Returns the hint on the known name that is nearest to a mistyped one.

    Args:
        word: what was asked for.
        known: the names that exist.

    Returns:
        `"; did you mean 'x'?"`, or an empty string when nothing is near.
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
