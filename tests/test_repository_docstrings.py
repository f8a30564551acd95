"""Public names are documented: arguments, results, errors and, of a paper, a source."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import checkout
import pytest

SECTION = re.compile(r"^(Args|Returns|Yields|Raises|References|Attributes):\s*(.*)$")
ENTRY = re.compile(r"^    (\S[^:]*):( |$)", re.MULTILINE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sections(docstring: str) -> dict[str, str]:
    """The text of each Google-style section; an indented one ends at the next."""
    found, name = {}, ""
    for line in docstring.splitlines():
        if match := SECTION.match(line):
            name = match[1]
            found[name] = match[2]
        elif line and not line.startswith(" "):
            name = ""
        elif name:
            found[name] += f"\n{line}"
    return found


def documented(section: str) -> set[str]:
    """The names at the start of the entries of a section."""
    heads = ", ".join(match[1] for match in ENTRY.finditer(section))
    return {name.strip().lstrip("*`").rstrip("`") for name in heads.split(",")} - {""}


def parameters(function: Function) -> set[str]:
    """Names of the parameters, without `self` and `cls`."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    listed += [a for a in (arguments.vararg, arguments.kwarg) if a]
    return {a.arg for a in listed} - {"self", "cls"}


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a body without those of functions and classes defined in it."""
    queue: list[ast.AST] = list(function.body)
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            queue.extend(ast.iter_child_nodes(node))


def raised(function: Function) -> set[str]:
    """Names of the exceptions raised in the body; "" where it is not a class.

    An `AssertionError` is a bug, or the outcome of a check, and needs no mention.
    """
    found = set()
    for node in own_nodes(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = getattr(called, "attr", None) or getattr(called, "id", "")
            found.add(name if name[:1].isupper() else "")
    return found - {"AssertionError"}


def gives(function: Function, kind: type[ast.Return] | type[ast.Yield]) -> bool:
    """Whether the body returns, or yields, something other than None."""
    values = (node.value for node in own_nodes(function) if isinstance(node, kind))
    return any(value and ast.unparse(value) != "None" for value in values)


def function_problems(function: Function, *, needs_source: bool = False) -> list[str]:
    """What the docstring of a public function or method lacks."""
    docstring = ast.get_docstring(function)
    if not docstring:
        return ["no docstring"]
    has = sections(docstring)
    wanted, got = parameters(function), documented(has.get("Args", ""))
    errors = {name for name in raised(function) if name not in has.get("Raises", "")}
    is_property = any("property" in ast.unparse(d) for d in function.decorator_list)
    returns = gives(function, ast.Return) and not is_property
    problems = {
        f"Args lacks {sorted(wanted - got)}": wanted - got,
        f"Args names {sorted(got - wanted)}": got - wanted,
        f"Raises lacks {sorted(errors)}": errors,
        "no Returns": returns and "Returns" not in has,
        "no Yields": gives(function, ast.Yield)
        and not has.keys() & {"Yields", "Returns"},
        "no References with an address": needs_source
        and "http" not in has.get("References", ""),
    }
    return [problem for problem, is_wrong in problems.items() if is_wrong]


def class_problems(node: ast.ClassDef) -> Iterator[tuple[str, int, str]]:
    """What the docstrings of a public class and its public methods lack."""
    docstring = ast.get_docstring(node)
    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    if not docstring:
        yield node.name, node.lineno, "no docstring"
    is_record = "NamedTuple" in bases or any(
        "dataclass" in ast.unparse(decorator) for decorator in node.decorator_list
    )
    fields = [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    text = (docstring or "").partition("Attributes:")[2]
    for field in fields if is_record else []:
        if not field.startswith("_") and not re.search(rf"\b{field}\b[^:]*:", text):
            yield node.name, node.lineno, f"Attributes lacks {field!r}"
    for item in node.body:
        is_public = isinstance(item, Function) and not item.name.startswith("_")
        if is_public and "Protocol" not in bases:
            for problem in function_problems(item):
                yield f"{node.name}.{item.name}", item.lineno, problem


def docstring_violations(
    tree: ast.Module, *, exported: tuple[str, ...] = (), is_evidence: bool = False
) -> Iterator[str]:
    """What a module's docstrings lack, as `line: name: what`.

    A check needs one line, which says what it checks: the functions of `claims.py`, and
    those that get a `case` of the conformance suites.
    """
    if not ast.get_docstring(tree):
        yield "1: module: no docstring"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for name, line, problem in class_problems(node):
                yield f"{line}: {name}: {problem}"
        if isinstance(node, Function) and not node.name.startswith("_"):
            problems = function_problems(node, needs_source=node.name in exported)
            if is_evidence or parameters(node) == {"case"}:
                problems = [p for p in problems if p == "no docstring"]
            yield from (f"{node.lineno}: {node.name}: {p}" for p in problems)


def violations(root: Path) -> list[str]:
    """Everything that the docstrings of the product lack."""
    found = []
    for file in checkout.product_modules(root):
        place = file.relative_to(root)
        package = place.parts[0]
        is_paper = package != checkout.HOUSE
        if file.name != "main.py":
            problems = docstring_violations(
                checkout.parse(file),
                exported=tuple(checkout.exported(root, package)) if is_paper else (),
                is_evidence=is_paper and checkout.is_evidence(file),
            )
            found += [f"{place}:{problem}" for problem in problems]
    return found


def test_public_names_are_documented(repository_root):
    assert violations(repository_root) == []


CLEAN = '''
    """A module."""

    from typing import NamedTuple

    class State(NamedTuple):
        """A state.

        Attributes:
            count: steps done.
        """

        count: int

    class Writer:
        """Writes."""

        def write(self, row, **values):
            """Writes a row.

            Args:
                row: number.
                **values: figures.
            """

        @property
        def size(self):
            """Rows written."""
            return 0

    def rule(rate, /, b1: float = 0.9, *rest, mask=None):
        """The rule.

        Args:
            rate: a rate: at least 0.
            b1, mask: two more,
                on two lines.
            *rest: ignored.

        Returns:
            A function.

        Raises:
            ValueError: if `rate` is negative.

        References:
            Author, *Title*, 2023. https://arxiv.org/abs/2302.06675
        """
        if rate < 0:
            raise ValueError(rate)
        def update(x):
            raise TypeError(x)
        return update

    def rows():
        """Rows.

        Yields:
            Numbers.
        """
        yield 1

    def _private(x):
        return x
'''


def check(source: str) -> list[str]:
    """The problems of a module that exports `rule`."""
    tree = ast.parse(textwrap.dedent(source))
    problems = docstring_violations(tree, exported=("rule",))
    return [problem.split(": ", 1)[1] for problem in problems]


def test_a_documented_module_passes():
    assert check(CLEAN) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"""A module."""', "", "module: no docstring"),
        ("count: steps done.", "", "State: Attributes lacks 'count'"),
        ('"""Writes."""', "", "Writer: no docstring"),
        ("row: number.", "", "Writer.write: Args lacks ['row']"),
        ("**values: figures.", "", "Writer.write: Args lacks ['values']"),
        ('"""Rows written."""', "", "Writer.size: no docstring"),
        ("b1, mask: two", "b1: two", "rule: Args lacks ['mask']"),
        (
            "*rest: ignored.",
            "*rest: x\n            beta: x",
            "rule: Args names ['beta']",
        ),
        ("Returns:", "Result:", "rule: no Returns"),
        ("ValueError: if", "KeyError: if", "rule: Raises lacks ['ValueError']"),
        ("https://arxiv.org", "arxiv.org", "rule: no References with an address"),
        ("Yields:", "Result:", "rows: no Yields"),
        ("def _private", "def private", "private: no docstring"),
    ],
)
def test_a_gap_in_a_docstring_is_found(old, new, problem):
    assert check(CLEAN.replace(old, new)) == [problem]


def test_the_rules_reach_the_files_of_a_checkout(tmp_path):
    root = checkout.plant(
        tmp_path,
        {
            "setup.cfg": "[options]\npackages =\n    expkit\n    sam\n",
            "expkit/loop.py": "def fit(): pass",
            "sam/__init__.py": '"""."""\n__all__ = ["sam"]',
            "sam/rule.py": '"""."""\ndef sam():\n    """A rule."""',
            "sam/claims.py": '"""."""\ndef check(context):\n    """A check."""',
            "sam/main.py": "",
        },
    )
    assert violations(root) == [
        "expkit/loop.py:1: module: no docstring",
        "expkit/loop.py:1: fit: no docstring",
        "sam/rule.py:2: sam: no References with an address",
    ]
