"""What the repository's rules need to know about a checkout: packages, modules, files.

Everything is a function of the root folder, so that a rule can be tried on a small tree
with a planted violation.
"""

import ast
import configparser
import fnmatch
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOUSE = "expkit"
IMPORTERS = ("import_module", "__import__", "find_spec", "run_module", "resolve_name")


def setup_cfg(root: Path) -> configparser.ConfigParser:
    """The metadata of the distribution."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(root / "setup.cfg", encoding="utf-8")
    return parser


def lines_of(text: str) -> list[str]:
    """The entries of a multi-line value, without comments."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def declared_packages(root: Path) -> list[str]:
    """The packages that `setup.cfg` installs, subpackages included."""
    return lines_of(setup_cfg(root).get("options", "packages", fallback=""))


def paper_packages(root: Path) -> list[str]:
    """The packages of papers: installed ones, and folders that look like one."""
    declared = {name.partition(".")[0] for name in declared_packages(root)}
    found = {
        file.parent.name
        for file in root.glob("*/claims.py")
        if (file.parent / "main.py").is_file()
    }
    return sorted((declared | found) - {HOUSE})


def modules(root: Path, package: str) -> list[Path]:
    """The Python files of a package, subpackages included."""
    return sorted((root / package).rglob("*.py"))


def product_modules(root: Path) -> list[Path]:
    """The Python files of all packages."""
    packages = [HOUSE, *paper_packages(root)]
    return [file for package in packages for file in modules(root, package)]


def is_evidence(file: Path) -> bool:
    """Whether a file is `claims.py`, or one of the `checks_*.py` it is split into."""
    return file.name == "claims.py" or fnmatch.fnmatch(file.name, "checks_*.py")


def method_modules(root: Path, package: str) -> list[Path]:
    """The modules of a paper package that are neither an entry nor an experiment."""
    others = ("__init__.py", "train.py", "main.py")
    return [
        file
        for file in modules(root, package)
        if file.name not in others and not is_evidence(file)
    ]


def module_name(root: Path, file: Path) -> str:
    """`lion/transform.py` -> `lion.transform`."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def parse(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_bytes(), filename=str(file))


def exported(root: Path, package: str) -> list[str]:
    """The names in `__all__` of a package; empty when it has none."""
    init = root / package / "__init__.py"
    for node in parse(init).body if init.is_file() else []:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                return list(ast.literal_eval(node.value))
    return []


class Import(NamedTuple):
    """One imported name: dotted, and where it stands."""

    name: str
    line: int
    is_eager: bool


def imports(tree: ast.Module, package: str) -> Iterator[Import]:
    """What a module of `package` imports, also lazily and by string."""
    eager = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = package.split(".")[: 1 - node.level or None] if node.level else []
            source = ".".join([*folder, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in IMPORTERS and node.args:
            names = [_text(node.args[0])]
        yield from (Import(name, node.lineno, id(node) in eager) for name in names)


def _called(call: ast.Call) -> str:
    function = call.func
    return getattr(function, "attr", None) or getattr(function, "id", "")


def _text(node: ast.expr) -> str:
    """A constant string; of an f-string, what comes before the first brace."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else "<computed>"


def is_in(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the modules or inside one."""
    return any(name == module or name.startswith(module + ".") for module in modules)


def files(root: Path) -> list[Path]:
    """The files of a checkout that git does not ignore, relative to the root."""
    ignored = [".git/"]
    if (root / ".gitignore").is_file():
        ignored += lines_of((root / ".gitignore").read_text(encoding="utf-8"))
    for pattern in ignored:
        if "/" in pattern[:-1] or pattern.startswith("!"):
            raise ValueError(
                f".gitignore: {pattern!r} is more than a name; keep to names."
            )
    return sorted(file.relative_to(root) for file in _walk(root, ignored))


def _walk(root: Path, ignored: list[str]) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [n for n in subfolders if not is_ignored(n, ignored, "/")]
        yield from (Path(folder, n) for n in names if not is_ignored(n, ignored))


def is_ignored(name: str, patterns: list[str], slash: str = "") -> bool:
    """Whether a file, or with `slash="/"` a folder, matches a pattern of .gitignore."""
    return any(
        fnmatch.fnmatchcase(name, pattern.removesuffix(slash)) for pattern in patterns
    )


def plant(root: Path, tree: dict[str, str]) -> Path:
    """Writes `{path: text}` below a folder, for tests of the rules; returns it."""
    for path, text in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root
