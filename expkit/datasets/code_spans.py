"""`code_spans`: nested spans in 35,000 lines of Python, those of its syntax tree.

Source: the standard library of the Python that runs, whose files are parsed and never
run (Python Software Foundation License). A text is a line that is one statement as a
whole, without indentation; its spans are the expressions in it, of the 15 kinds of
`TYPES`, with the names that `ast` has for them. Nothing is annotated by hand, so all
spans are right, and about three lines in four have spans inside others.

Names are no spans: they would be half of all, and a name is one by itself. Nor is what
stands in an f-string, whose places Python before 3.12 does not know. Left out are lines
without spans, docstrings, tests, what is generated when Python is built, and the
applications and build tools that not every installation has.

Whole files are in one split, by a hash of their paths, which do not change with the
version of Python. Their content does: the configuration is named after a hash of it,
and results with different names differ. Lines that repeat, but for case and white
space, count once, and are in training if a file there has them.
"""

import ast
import importlib.util
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from expkit.datasets import span_features
from expkit.datasets.conll import Span
from expkit.datasets.errors import DataError
from expkit.datasets.installed import content_name
from expkit.datasets.texts import mixing_key, same_key

TYPES = (
    "Attribute",
    "BinOp",
    "BoolOp",
    "Call",
    "Compare",
    "Constant",
    "Dict",
    "IfExp",
    "JoinedStr",
    "List",
    "ListComp",
    "Subscript",
    "Tuple",
    "UnaryOp",
    "keyword",
)
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
MIN_CHARACTERS, MAX_CHARACTERS = 20, 99
FOLDER = "expkit_code_spans"

_LEFT_OUT = re.compile(
    r"(.*/)?(tests?|idle_test|site-packages|dist-packages|config-[^/]*)/.*"
    r"|(distutils|idlelib|lib2to3|turtledemo)/.*|_sysconfigdata.*"
)


class Statement(NamedTuple):
    """Attributes: text: a line; spans: (type, start, end), end inclusive, in it."""

    text: str
    spans: list[Span]


class CodeSpans(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Keys `text` and `spans`, a sequence of `type`, `start` and inclusive `end`."""

    name = FOLDER
    VERSION = tfds.core.Version("1.0.0")
    # Else TFDS imports importlib_resources, which it does not declare, to look for it.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.builder_config.description,
            features=span_features.features(TYPES),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        files = read_files()
        if describe(files)[0] != self.builder_config.name:
            raise DataError("the standard library changed meanwhile; run again.")
        splits = split_statements(files)
        return {name: self._generate_examples(rows) for name, rows in splits.items()}

    def _generate_examples(self, rows):
        for key, statement in enumerate(rows):
            yield key, span_features.to_row(*statement)


def read_files() -> dict[str, bytes]:
    """Reads the modules of the standard library.

    Returns:
        The content of each file by its path inside the library, with `/`, in the order
        of the paths.

    Raises:
        DataError: if Python is installed without them.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    kept = sorted(_modules(folder))
    if not kept:
        raise DataError(
            f"the source 'code_spans' reads Python's own modules, but {folder} has no "
            ".py files; use a Python that is installed with them, as from python.org."
        )
    return {path: (folder / path).read_bytes() for path in kept}


def _modules(folder: Path) -> Iterator[str]:
    """Paths of the files that are used; folders that are left out are not entered."""
    for parent, folders, names in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        below = {name: f"{(inside / name).as_posix()}/" for name in folders}
        folders[:] = [name for name in below if not _LEFT_OUT.fullmatch(below[name])]
        paths = ((inside / name).as_posix() for name in names if name.endswith(".py"))
        yield from (path for path in paths if not _LEFT_OUT.fullmatch(path))


def describe(files: Mapping[str, bytes]) -> tuple[str, str]:
    """Names the content of the library, which changes with the version of Python.

    Args:
        files: as `read_files` gives them.

    Returns:
        The name of a configuration, with a hash of paths and contents of all files, and
        a sentence with the version of Python and that name.
    """
    name = content_name(f"{path}\n".encode() + files[path] for path in sorted(files))
    version = platform.python_version()
    return name, f"Standard library of Python {version}; content {name}."


def read_statements(content: bytes) -> Iterator[Statement]:
    """Finds the statements that are one line and have spans.

    Args:
        content: of a module; nothing is found where it is not valid Python.

    Yields:
        The statements of `MIN_CHARACTERS` to `MAX_CHARACTERS` characters in their
        order, spans in the order of their starts, an outer one before those inside it.
    """
    try:
        code = importlib.util.decode_source(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return
    lines = code.split("\n")
    for statement in _simple_statements(tree):
        if statement.lineno != statement.end_lineno or _is_constant(statement):
            continue
        line = lines[statement.lineno - 1]
        text = line.strip()
        found = _spans(statement, line)
        start, end = _characters(statement, line)
        is_whole = line[start : end + 1] == text
        if found and is_whole and MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
            spans = [(kind, i - start, j - start) for kind, i, j in found]
            yield Statement(text, sorted(spans, key=lambda s: (s[1], -s[2], s[0])))


def split_statements(files: Mapping[str, bytes]) -> dict[str, list[Statement]]:
    """Assigns the statements of whole files to splits.

    Args:
        files: contents by path.

    Returns:
        The statements of `"train"`, `"validation"` and `"test"`, mixed, so that a slice
        of a split is a sample of it. No two differ only in case and white space.
    """
    homes = {path: split_of(path) for path in sorted(files)}
    taken: set[str] = set()
    splits = {}
    for split in SHARES:
        rows = {}
        for path in (path for path, home in homes.items() if home == split):
            for statement in read_statements(files[path]):
                rows.setdefault(same_key(statement.text), statement)
        fresh = [rows[key] for key in rows.keys() - taken]
        splits[split] = sorted(fresh, key=lambda row: mixing_key(row.text))
        taken.update(rows)
    return splits


def split_of(path: str) -> str:
    """Draws the split of a file.

    Args:
        path: inside the library, with `/`.

    Returns:
        A name of `SHARES`, each with its probability, always the same for a path.
    """
    place = int.from_bytes(mixing_key(path)[:8]) / 2**64
    for split, share in SHARES.items():
        place -= share
        if place < 0:
            return split
    return split


def make_builder(root: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder, not prepared; another Python makes another one.

    Args:
        root: folder of all prepared sources.
        data_dir: must be None, since the data is installed.

    Returns:
        A TFDS builder whose configuration is named after the content of the library.

    Raises:
        DataError: if Python is installed without the files.
    """
    del data_dir
    name, description = describe(read_files())
    config = tfds.core.BuilderConfig(name=name, description=description)
    return CodeSpans(data_dir=root, config=config, file_format="array_record")


def _simple_statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Yields the statements below a node that no others are in, in their order."""
    for child in ast.iter_child_nodes(node):
        is_compound = hasattr(child, "body") or hasattr(child, "cases")
        if isinstance(child, ast.stmt) and not is_compound:
            yield child
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _simple_statements(child)


def _is_constant(statement: ast.stmt) -> bool:
    """Tells docstrings, and dots in place of code."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _spans(node: ast.AST, line: str) -> list[Span]:
    found = []
    for child in ast.iter_child_nodes(node):
        kind = type(child).__name__
        if isinstance(child, ast.expr | ast.keyword) and kind in TYPES:
            found.append((kind, *_characters(child, line)))
        if not isinstance(child, ast.JoinedStr):
            found += _spans(child, line)
    return found


def _characters(node: ast.stmt | ast.expr | ast.keyword, line: str) -> tuple[int, int]:
    """First and last character of a node, whose places are bytes in UTF-8."""
    start, stop = node.col_offset, node.end_col_offset or 0
    if not line.isascii():
        encoded = line.encode()
        start, stop = (len(encoded[:offset].decode()) for offset in (start, stop))
    return start, stop - 1
