"""Syntax trees are built by one thread at a time."""

import ast
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from expkit import syntax


def test_the_tree_is_that_of_ast():
    source = b"import a\n\n\ndef f(x):\n    return [y for y in x]\n"
    assert ast.dump(syntax.parse(source)) == ast.dump(ast.parse(source))
    with pytest.raises(SyntaxError):
        syntax.parse("a b")


def test_no_two_threads_parse_at_a_time(monkeypatch):
    inside, most = [], []

    def slow(source):
        inside.append(threading.get_ident())
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return source

    monkeypatch.setattr(ast, "parse", slow)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(syntax.parse, "abcd")) == list("abcd")
    assert max(most) == 1
    most.clear()
    with ThreadPoolExecutor(4) as pool:  # the control, without the lock
        list(pool.map(slow, "abcd"))
    assert max(most) > 1
