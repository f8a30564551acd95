"""The error of every data source, and the help that its messages share."""

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """Data that cannot be used; one line with the place and the remedy."""

    def __init__(self, message: str):
        # A path may hold line ends, and codes that a terminal obeys.
        super().__init__(
            "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        )


def shorten(value: object, limit: int = 60) -> str:
    """Returns the `repr` of a value, cut so that a message stays one line.

    Args:
        value: anything found in a file.
        limit: number of characters kept.

    Returns:
        One line of at most `limit` + 3 characters.
    """
    try:
        text = repr(value if not isinstance(value, str) else value[: 4 * limit])
    except RecursionError:  # JSON may be nested deeper than this can follow
        text = f"a deep {type(value).__name__}"
    return text if len(text) <= limit else text[:limit] + "..."


def listed(names: Iterable[str], limit: int = 20) -> str:
    """Returns names for a message, however many and however long they are.

    Args:
        names: such as those of columns.
        limit: number of names shown.

    Returns:
        `"'a', 'b'"`, with three dots for what is left out.
    """
    names = list(names)
    dots = ", ..." if len(names) > limit else ""
    return ", ".join(map(shorten, names[:limit])) + dots


def suggestion(word: str, known: Iterable[str]) -> str:
    """Returns the hint on the known name that is nearest to a mistyped one.

    Args:
        word: what was asked for.
        known: the names that exist.

    Returns:
        `"; did you mean 'x'?"`, or an empty string when nothing is near.
    """
    # Comparing takes the product of the lengths.
    close = [name for name in known if len(name) <= 2 * len(word)]
    near = difflib.get_close_matches(word, close, n=1) if len(word) < 100 else []
    return f"; did you mean {near[0]!r}?" if near else ""
