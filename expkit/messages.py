"""Errors of libraries as a part of one line.

one_line(ValueError("a\n  b"))  # "a b"
"""


def one_line(error: object, most: int | None = None) -> str:
    """The text of an error in one line.

    Args:
        error: an exception, or a text.
        most: characters that are kept; None keeps all.

    Returns:
        The text with single spaces where there was any white space.
    """
    return " ".join(str(error).split())[:most]
