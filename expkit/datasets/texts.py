"""When two texts count as the same, and an order of texts that looks random."""

import hashlib


def same_key(text: str) -> str:
    """Returns what texts share that differ only in case and in white space.

    Args:
        text: any text.

    Returns:
        The text casefolded, words joined by single spaces.
    """
    return " ".join(text.casefold().split())


def mixing_key(*parts: object) -> bytes:
    """Returns a sorting key that mixes rows, the same with every version of Python.

    Args:
        *parts: what identifies the row, such as its number and its text.

    Returns:
        32 bytes.
    """
    return hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
