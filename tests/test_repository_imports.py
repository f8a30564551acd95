"""Imports point one way: main -> train -> {method, expkit}, read from the ASTs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import checkout
import pytest
from checkout import imports, is_in

PURE = (
    *("expkit.arguments", "expkit.explicit", "expkit.per_example", "expkit.rotary"),
    *("expkit.softmax", "expkit.trees"),
)
METHOD = ("jax", "optax", "chex", "numpy", *PURE)
MODEL = ("flax", "expkit.nets")
BANNED = ("torch", "tensorflow", "pickle")
VAGUE_NAMES = ("utils", "util", "helpers", "misc", "common")
MAIN_LINES = 40


def is_standard(name: str) -> bool:
    """Whether a dotted name belongs to the standard library."""
    return name.partition(".")[0] in sys.stdlib_module_names


def violations(root: Path) -> list[str]:
    """All imports that point the wrong way, as `file:line: what`."""
    papers = checkout.paper_packages(root)
    found = []
    for package in [checkout.HOUSE, *papers]:
        for file in checkout.modules(root, package):
            found += _module_violations(root, package, file, papers)
    for file in sorted((root / "examples").rglob("*.py")):
        found += _module_violations(root, "", file, papers)
    return found + [v for paper in papers for v in heavy_inits(root, paper)]


def _module_violations(root, package, file, papers) -> Iterator[str]:
    name = checkout.module_name(root, file)
    folder = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for item in imports(checkout.parse(file), folder):
        problem = _problem(root, package, file, item.name, papers)
        if problem:
            yield f"{file.relative_to(root)}:{item.line}: {item.name} {problem}"


def _problem(root, package, file, name, papers) -> str:
    own = (package,) if package else ()
    ours = (checkout.HOUSE, *papers)
    others = tuple(paper for paper in papers if paper != package)
    entries = tuple(f"{package}.{entry}" for entry in ("main", "train", "claims"))
    is_entry = is_in(name, entries) or name.startswith(f"{package}.checks_")
    role = file.name if file.parent == root / package else ""
    may_import_papers = role == "train.py" or checkout.is_evidence(file) or not package
    if is_in(name, BANNED):
        return "is not for product code"
    if is_in(name, ours) and name.rpartition(".")[2].startswith("_"):
        return "is private"
    if package == checkout.HOUSE:
        if is_in(name, others):
            return "is a paper; expkit knows none"
        if name == "<computed>":
            return "hides which module is imported"
        is_pure = is_in(checkout.module_name(root, file), PURE)
        is_allowed = not is_pure or is_standard(name) or is_in(name, METHOD)
        return "" if is_allowed else "is not for a pure module"
    if role == "main.py":
        allowed = (f"{package}.train", f"{checkout.HOUSE}.app")
        return "" if is_in(name, allowed) else "does not belong in main.py"
    if may_import_papers:
        if is_in(name, others) and not _is_public(root, name):
            return "is not a public name of that paper"
        return "main.py is not to be imported" * is_in(name, entries[:1])
    if is_entry:
        return "is above a method module"
    if is_in(name, own) or is_standard(name):
        return ""
    if role == "__init__.py":
        return "is not a method module of the package"
    if is_in(name, others):
        return "is another paper"
    return "" if is_in(name, METHOD + MODEL) else "is not for a method module"


def _is_public(root: Path, name: str) -> bool:
    """Whether `paper` or `paper.name` is what a stranger may import."""
    paper, _, rest = name.partition(".")
    return not rest or rest in checkout.exported(root, paper)


def heavy_inits(root: Path, package: str) -> list[str]:
    """Imports of Flax that `import package` would run."""
    found, seen, queue = [], set(), [package]
    while queue:
        name = queue.pop()
        path = root.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in seen or not file.is_file():
            # `from package.module import name` lists the name, not the module.
            if name not in seen and "." in name:
                queue.append(name.rpartition(".")[0])
            seen.add(name)
            continue
        seen.add(name)
        folder = name if path.is_dir() else name.rpartition(".")[0]
        eager = [i for i in imports(checkout.parse(file), folder) if i.is_eager]
        queue += [i.name for i in eager if is_in(i.name, (package,))]
        found += [
            f"{file.relative_to(root)}:{i.line}: {i.name} makes `import {package}` slow"
            for i in eager
            if is_in(i.name, MODEL)
        ]
    return found


def names(root: Path) -> list[str]:
    """Modules with a vague name, or with the name of what their package exports."""
    found = []
    for file in checkout.product_modules(root):
        place = file.relative_to(root)
        if file.stem in VAGUE_NAMES:
            found.append(f"{place}: name it after what it does")
        package = place.parent.as_posix()
        if file.stem in checkout.exported(root, package):
            found.append(f"{place}: importing it rebinds {package}.{file.stem}")
    return found


def long_mains(root: Path) -> list[str]:
    """Each main.py with more than `MAIN_LINES` lines."""
    files = [root / paper / "main.py" for paper in checkout.paper_packages(root)]
    return [
        f"{file.relative_to(root)}: more than {MAIN_LINES} lines"
        for file in files
        if file.is_file() and len(file.read_text().splitlines()) > MAIN_LINES
    ]


def test_imports_point_one_way(repository_root):
    assert violations(repository_root) == []


def test_no_module_is_named_after_an_exported_name_or_after_nothing(repository_root):
    assert names(repository_root) == []


def test_mains_have_no_room_for_logic(repository_root):
    assert long_mains(repository_root) == []


CLEAN = {
    "expkit/__init__.py": "",
    "expkit/loop.py": "import importlib\nimportlib.import_module(f'expkit.{1}')\n",
    "expkit/trees.py": "import math\nimport jax\n",
    "sam/__init__.py": "from sam.rule import sam\n__all__ = ['sam']\n",
    "sam/rule.py": "import math\nimport jax.numpy as jnp\nfrom expkit import trees\n",
    "sam/model.py": "from flax import nnx\nfrom expkit import nets\nimport sam.rule",
    "sam/train.py": "import scipy\nimport sam, swa\nfrom swa import swa as average\n",
    "sam/claims.py": "from expkit.claims import main\nfrom sam import train\n",
    "sam/checks_digits.py": "import sklearn\nfrom sam import train\n",
    "sam/main.py": "from expkit import app\nfrom sam import train\n",
    "swa/__init__.py": "from .rule import swa\n__all__ = ['swa']\n",
    "swa/rule.py": "import optax, chex, numpy\n",
    "swa/claims.py": "",
    "swa/main.py": "",
}


@pytest.fixture
def tree(tmp_path):
    """A clean checkout of two papers."""
    return checkout.plant(tmp_path, CLEAN)


def test_a_clean_tree_passes(tree):
    assert violations(tree) + names(tree) + long_mains(tree) == []


@pytest.mark.parametrize(
    ("file", "line", "name"),
    [
        ("sam/rule.py", "import absl", "absl"),
        ("sam/rule.py", "from expkit import data", "expkit.data"),
        ("sam/rule.py", "import expkit", "expkit"),
        ("sam/rule.py", "def f():\n    import swa", "swa"),
        ("sam/rule.py", "from sam import train", "sam.train"),
        ("sam/rule.py", "from .claims import x", "sam.claims.x"),
        ("sam/rule.py", "from sam import checks_digits", "sam.checks_digits"),
        ("sam/rule.py", "import torch", "torch"),
        ("sam/deep/rule.py", "from ..train import run", "sam.train.run"),
        ("sam/train.py", "from swa import rule", "swa.rule"),
        ("sam/train.py", "from swa.rule import swa", "swa.rule.swa"),
        ("sam/train.py", "from sam.rule import _check", "sam.rule._check"),
        ("sam/train.py", "import pickle", "pickle"),
        ("sam/claims.py", "from tensorflow import io", "tensorflow.io"),
        ("sam/main.py", "import jax", "jax"),
        ("sam/main.py", "from expkit import loop", "expkit.loop"),
        ("sam/__init__.py", "from sam.train import run", "sam.train.run"),
        ("sam/__init__.py", "import jax", "jax"),
        ("expkit/loop.py", "from sam import sam", "sam.sam"),
        ("expkit/loop.py", "def f():\n    import swa.rule", "swa.rule"),
        ("expkit/loop.py", "importlib.import_module('swa')", "swa"),
        ("expkit/loop.py", "importlib.import_module(name)", "<computed>"),
        ("expkit/trees.py", "from expkit import loop", "expkit.loop"),
        ("expkit/deep/loop.py", "__import__('sam.train')", "sam.train"),
        ("examples/both.py", "import sam\nfrom swa import rule", "swa.rule"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(tmp_path, file, line, name):
    checkout.plant(tmp_path, CLEAN | {file: f"{CLEAN.get(file, '')}\n{line}\n"})
    (problem,) = violations(tmp_path)
    assert problem.startswith(f"{file}:")
    assert f": {name} " in problem


def test_flax_behind_a_plain_import_is_found(tmp_path):
    init = "from sam.rule import sam\nfrom sam import model\n"
    checkout.plant(tmp_path, CLEAN | {"sam/__init__.py": init})
    found = " ".join(violations(tmp_path))
    assert "sam/model.py:1: flax.nnx makes `import sam` slow" in found


@pytest.mark.parametrize("file", ["sam/sam.py", "sam/utils.py", "expkit/misc.py"])
def test_a_treacherous_module_name_is_found(tmp_path, file):
    checkout.plant(tmp_path, CLEAN | {file: ""})
    (problem,) = names(tmp_path)
    assert problem.startswith(file)


def test_a_long_main_is_found(tmp_path):
    checkout.plant(tmp_path, CLEAN | {"sam/main.py": "\n" * (MAIN_LINES + 1)})
    assert long_mains(tmp_path) == [f"sam/main.py: more than {MAIN_LINES} lines"]
