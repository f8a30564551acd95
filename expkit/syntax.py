"""Syntax trees, for several threads.

parse(b"import jax").body
"""

import ast
import threading

_LOCK = threading.Lock()


def parse(source: str | bytes) -> ast.Module:
    """`ast.parse`, by one thread at a time.

    Python 3.11 keeps one count of the depth of a tree for all threads. Where two of
    them build trees at a time, it may raise a SystemError for good code.

    Args:
        source: of a module.

    Returns:
        Its tree.

    Raises:
        SyntaxError: if it is no Python.
        ValueError: if it holds a null byte.
    """
    with _LOCK:
        return ast.parse(source)
