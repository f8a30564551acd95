"""Every package of a paper has the same anatomy; modules and functions stay small.

The other rules of the repository are in `test_repository_*.py` beside this file. Each
rule is a function of the root folder (or of a text) and has planted violations.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import checkout
import pytest

FILES = (
    "__init__.py",
    "claims.py",
    "train.py",
    "main.py",
    "README.md",
    "demo.ipynb",
    "py.typed",
)
HEADINGS = (
    "Idea",
    "Use",
    "When to use it",
    "API",
    "Experiments",
    "Results",
    "Published",
    "Differences",
    "References",
)
# Modules of expkit that are tested through another one.
TESTED_THROUGH = {
    "expkit.claim_rows": "expkit.claim_runner",
    "expkit.command_line": "expkit.claims",
    "expkit.driver": "expkit.reproduce",
}
MODULE_LINES = 300
FUNCTION_LINES = 60


def anatomy(root: Path, package: str) -> Iterator[str]:
    """What a paper package lacks that the others have."""
    for name in FILES:
        if not (root / package / name).is_file():
            yield f"{package}/{name} is missing"
    if not checkout.exported(root, package):
        yield f"{package}/__init__.py has no __all__"
    methods = checkout.method_modules(root, package)
    if not methods:
        yield f"{package} has no method module"
    for module in methods:
        test = Path("tests", package, f"test_{module.stem.lstrip('_')}.py")
        if not (root / test).is_file():
            yield f"{test} is missing"
    if not list((root / "configs" / package).glob("*.py")):
        yield f"configs/{package} has no config"
    if package not in checkout.declared_packages(root):
        yield f"{package} is not among the packages of setup.cfg"


def readme(file: Path) -> Iterator[str]:
    """What the README of a paper package lacks."""
    text = file.read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    # Comments of a shell look like headings.
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^## (.+)$", prose, flags=re.MULTILINE)
    for wanted in HEADINGS:
        if not any(re.match(rf"{wanted}\b", heading) for heading in headings):
            yield f"no heading `## {wanted}`"
    if not re.match(r"# \S", text):
        yield "the first line is no title"
    # The report shows this paragraph.
    if not re.match(r"[^\n]*\n+(?!#)\S", prose):
        yield "no paragraph introduces it"
    results = re.search(r"^## Results.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if results and not re.search(r"reproduce\.sh|python -m ", results[0]):
        yield "the results come without their command"
    if results and not re.search(r"^\|.*\d", results[0], re.MULTILINE):
        yield "the results have no table with numbers"
    published = re.search(
        r"^## Published.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    if published and "https://" not in published[0]:
        yield "the published numbers come without an address"
    if published and not re.search(r"^\|.*\d", published[0], re.MULTILINE):
        yield "the published numbers are in no table"
    references = prose.partition("\n## References")[2]
    if references and "https://" not in references:
        yield "the references have no address"


def untested(root: Path) -> list[str]:
    """Modules of `expkit` with public names that no test in tests/expkit is about.

    A test is about the module it is named after and those it imports; one test may
    cover a subpackage through its public names.
    """
    tests = sorted((root / "tests" / checkout.HOUSE).glob("test_*.py"))
    imported = {
        item.name
        for test in tests
        for item in checkout.imports(checkout.parse(test), "")
    }
    found = []
    for file in checkout.modules(root, checkout.HOUSE):
        module = checkout.module_name(root, file)
        module = TESTED_THROUGH.get(module, module)
        parent, _, name = module.rpartition(".")
        covering = (module,) if parent == checkout.HOUSE else (module, parent)
        if (
            file.name != "__init__.py"
            and any(map(_is_public, checkout.parse(file).body))
            and f"test_{name}" not in {test.stem for test in tests}
            and not any(checkout.is_in(item, covering) for item in imported)
        ):
            found.append(file.relative_to(root).as_posix())
    return found


def _is_public(node: ast.stmt) -> bool:
    is_definition = isinstance(node, ast.FunctionDef | ast.ClassDef)
    return is_definition and not node.name.startswith("_")


def packages_of_tests(root: Path) -> list[str]:
    """Test folders with an `__init__.py`: `tests/lion` would then hide `lion`."""
    return [str(f.relative_to(root)) for f in (root / "tests").rglob("__init__.py")]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def sizes(source: str) -> Iterator[str]:
    """A module or a function that has grown too long."""
    if (lines := len(source.splitlines())) > MODULE_LINES:
        yield f"1: module: {lines} lines, at most {MODULE_LINES}"
    for node in ast.walk(ast.parse(source)):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function and (lines := code_lines(node)) > FUNCTION_LINES:
            yield f"{node.lineno}: {node.name}: {lines} lines"


def test_there_are_papers(repository_root):
    assert "lion" in checkout.paper_packages(repository_root)


def test_every_paper_has_the_same_anatomy(repository_root):
    papers = checkout.paper_packages(repository_root)
    assert [lack for paper in papers for lack in anatomy(repository_root, paper)] == []


def test_every_readme_has_the_same_sections(repository_root):
    for paper in checkout.paper_packages(repository_root):
        assert list(readme(repository_root / paper / "README.md")) == [], paper


def test_every_module_of_the_house_has_a_test(repository_root):
    assert untested(repository_root) == []


def test_tests_are_no_packages(repository_root):
    assert packages_of_tests(repository_root) == []


def test_modules_and_functions_are_small(repository_root):
    found = [
        f"{file.relative_to(repository_root)}:{problem}"
        for file in checkout.product_modules(repository_root)
        for problem in sizes(file.read_text(encoding="utf-8"))
    ]
    assert found == []


CLEAN = {
    "setup.cfg": "[options]\npackages =\n    expkit\n    sam\n",
    "expkit/__init__.py": "",
    "expkit/loop.py": "def fit(): ...",
    "expkit/inner/_parts.py": "def part(): ...",
    "expkit/inner/constants.py": "STEPS = 3",
    "configs/sam/digits.py": "",
    "tests/expkit/test_fit.py": "from expkit import data, loop\nimport expkit.inner",
    "tests/sam/test_rule.py": "",
    "sam/rule.py": "",
    "sam/checks_digits.py": "",
    **{f"sam/{name}": "" for name in FILES},
    "sam/__init__.py": "__all__ = ['sam']",
}
README = """# Sam

A rule.

## Idea
## Use
```bash
## References in a comment
```
## When to use it
## API
## Experiments
## Results
`./reproduce.sh sam`
<!-- python -m is no command here -->
| accuracy | 0.9 |
## Published
[Table 1](https://a.example): another task.
| published accuracy | 0.8 |
## Differences from the paper
## References
https://arxiv.org/abs/2302.06675
"""


def test_a_complete_package_passes(tmp_path):
    checkout.plant(tmp_path, CLEAN)
    assert checkout.paper_packages(tmp_path) == ["sam"]
    assert list(anatomy(tmp_path, "sam")) == []
    assert untested(tmp_path) == packages_of_tests(tmp_path) == []


@pytest.mark.parametrize(
    "missing",
    [
        *(f"sam/{name}" for name in FILES),
        "sam/rule.py",
        "configs/sam/digits.py",
        "tests/sam/test_rule.py",
        "setup.cfg",
    ],
)
def test_a_missing_part_is_found(tmp_path, missing):
    checkout.plant(tmp_path, {k: v for k, v in CLEAN.items() if k != missing})
    assert list(anatomy(tmp_path, "sam")) != []


def test_a_package_that_nobody_lists_is_found(tmp_path):
    checkout.plant(tmp_path, {"swa/claims.py": "", "swa/main.py": ""})
    assert checkout.paper_packages(tmp_path) == ["swa"]


@pytest.fixture
def check_readme(tmp_path):
    """`text -> problems` of a README with this text."""

    def check(text):
        return list(readme(checkout.plant(tmp_path, {"x.md": text}) / "x.md"))

    return check


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_missing_section_is_found(check_readme, heading):
    assert check_readme(README) == []
    changed = re.sub(rf"^## {heading}", "## Other", README, flags=re.MULTILINE)
    assert check_readme(changed) == [f"no heading `## {heading}`"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("# Sam\n", "Sam\n", "the first line is no title"),
        ("A rule.", "", "no paragraph introduces it"),
        ("./reproduce.sh sam", "", "the results come without their command"),
        ("| accuracy | 0.9 |", "", "the results have no table with numbers"),
        ("https://a.", "", "the published numbers come without an address"),
        ("| published accuracy | 0.8 |", "", "the published numbers are in no table"),
        ("https://arxiv", "arxiv", "the references have no address"),
    ],
)
def test_an_incomplete_section_is_found(check_readme, old, new, problem):
    assert check_readme(README.replace(old, new)) == [problem]


def test_an_untested_module_is_found(tmp_path):
    checkout.plant(tmp_path, CLEAN | {"tests/expkit/test_fit.py": "import expkit"})
    assert untested(tmp_path) == ["expkit/inner/_parts.py", "expkit/loop.py"]


def test_a_package_of_tests_is_found(tmp_path):
    checkout.plant(tmp_path, CLEAN | {"tests/sam/__init__.py": ""})
    assert packages_of_tests(tmp_path) == ["tests/sam/__init__.py"]


def test_a_long_module_and_a_long_function_are_found():
    body = "    x = 1\n" * FUNCTION_LINES
    docstring = '    """' + "\n" * 99 + '"""\n'
    assert list(sizes(f"def f():\n{body}")) == [f"1: f: {FUNCTION_LINES + 1} lines"]
    assert list(sizes(f"def f():\n{docstring}{body[10:]}")) == []
    (problem,) = sizes("\n" * (MODULE_LINES + 1))
    assert problem == f"1: module: {MODULE_LINES + 1} lines, at most {MODULE_LINES}"
