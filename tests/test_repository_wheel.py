"""The wheel holds the whitelisted packages and nothing else, and importing is light."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import checkout
import pytest

HEAVY = (
    "absl.app",
    "array_record",
    "flax",
    "grain",
    "jinja2",
    "matplotlib",
    "ml_collections",
    "orbax",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "tqdm",
)
SUFFIXES = {".py", ".typed", ".jinja", ".css"}
DATA = {"expkit/text/zh_char": {".json", ".safetensors", ".md"}}
OUTSIDE = ("benchmarks", "configs", "docs", "examples", "scripts", "tests")

BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_wheel(sys.argv[1]))
"""
# Each package in a process of its own, which has what all of them may import.
IMPORT = """
import importlib, json, os, sys
packages, heavy, light = map(str.split, sys.argv[1:])
for name in light:
    importlib.import_module(name)
for package in packages:
    if os.fork():
        os.wait()
        continue
    try:
        module = importlib.import_module(package)
        found = {
            "file": module.__file__,
            "heavy": [name for name in heavy if name in sys.modules],
            "missing": [name for name in module.__all__ if not hasattr(module, name)],
        }
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), flush=True)
    os._exit(0)
"""


def whitelist_problems(root: Path) -> Iterator[str]:
    """Folders with code that setup.cfg does not install, and the other way round."""
    declared = set(checkout.declared_packages(root))
    folders = {file.parent for file in checkout.files(root) if file.suffix == ".py"}
    inside = {f for f in folders if f.parts and f.parts[0] not in OUTSIDE}
    found = {".".join(folder.parts) for folder in inside}
    yield from (f"{name} is not in setup.cfg" for name in sorted(found - declared))
    yield from (f"{name} has no code" for name in sorted(declared - found))
    for name in sorted(found & declared):
        if not (root / name.replace(".", "/") / "__init__.py").is_file():
            yield f"{name} has no __init__.py"


def build(root: Path, work: Path) -> Path:
    """Builds the wheel from a copy of the files git would take, without a network."""
    source, target = work / "source", work / "wheel"
    target.mkdir(parents=True)
    for file in checkout.files(root):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / file, source / file)
    command = [sys.executable, "-c", BUILD, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


def content_problems(root: Path, names: list[str]) -> Iterator[str]:
    """What does not belong in the wheel, and what it lacks."""
    declared = checkout.declared_packages(root)
    top = {name.partition(".")[0] for name in declared}
    folders = {package.replace(".", "/") for package in declared} | {"expkit/templates"}
    for name in names:
        folder, _, file = name.rpartition("/")
        if ".dist-info" in name.partition("/")[0]:
            continue
        suffixes = DATA.get(folder, SUFFIXES if folder in folders else set())
        if Path(file).suffix not in suffixes:
            yield f"{name} does not belong in the wheel"
    wanted = [f"{package}/py.typed" for package in top]
    for file in checkout.files(root):
        is_code = file.suffix == ".py" or file.parent.name == "templates"
        if file.parts[0] in top and is_code:
            wanted.append(file.as_posix())
    yield from (f"{name} is missing" for name in sorted(set(wanted) - set(names)))
    if not any(name.endswith("/LICENSE") for name in names):
        yield "LICENSE is missing"


def import_problems(
    folder: Path, packages: list[str], heavy: tuple[str, ...], light: str = ""
) -> list[str]:
    """What is wrong with `import package` where `folder` is all that Python sees.

    Args:
        folder: what was installed.
        packages: each is imported in a process of its own.
        heavy: modules that none of them may load.
        light: modules that all of them may load, which are loaded once.

    Returns:
        A line for each problem.
    """
    command = [sys.executable, "-c", IMPORT, *map(" ".join, (packages, heavy)), light]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    empty = folder.parent / "empty"
    empty.mkdir(exist_ok=True)
    done = subprocess.run(
        command, cwd=empty, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    pairs = zip(packages, rows, strict=True)
    return [line for package, found in pairs for line in told(folder, package, found)]


def told(folder: Path, package: str, found: dict) -> Iterator[str]:
    """What is wrong by what an import printed."""
    if "error" in found:
        yield f"import {package}: {found['error']}"
        return
    yield from (f"import {package} loads {name}" for name in found["heavy"])
    yield from (f"{package}.__all__ has no {name}" for name in found["missing"])
    if not Path(found["file"]).is_relative_to(folder):
        yield f"import {package} finds {found['file']}"


@pytest.fixture(scope="module")
def wheel(repository_root, tmp_path_factory):
    """The wheel of this checkout."""
    return build(repository_root, tmp_path_factory.mktemp("build"))


def test_setup_cfg_names_every_package(repository_root):
    assert list(whitelist_problems(repository_root)) == []


def test_wheel_holds_the_packages_and_nothing_else(repository_root, wheel):
    assert wheel.name.startswith("jax_regularizers-")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    assert list(content_problems(repository_root, names)) == []


def test_papers_import_lightly_from_the_wheel(repository_root, wheel, tmp_path):
    folder = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    packages = checkout.paper_packages(repository_root)
    assert import_problems(folder, packages, HEAVY, "jax numpy optax") == []


CLEAN = {
    "setup.cfg": """
[metadata]
name = planted
version = 1
license_files = LICENSE
[options]
packages =
    expkit
    sam
[options.package_data]
* = py.typed
expkit = templates/*
""",
    "pyproject.toml": "[build-system]\nrequires = ['setuptools']\n"
    "build-backend = 'setuptools.build_meta'\n",
    "LICENSE": "",
    "configs/sam/digits.py": "",
    "tests/sam/test_rule.py": "",
    "expkit/__init__.py": "",
    "expkit/py.typed": "",
    "expkit/templates/page.css": "",
    "sam/__init__.py": "from sam.rule import sam\n__all__ = ['sam']\n",
    "sam/rule.py": "def sam(): ...\n",
    "sam/py.typed": "",
    "sam/README.md": "",
    "sam/demo.ipynb": "",
}


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({}, None),
        ({"swa/__init__.py": ""}, "swa is not in setup.cfg"),
        ({"expkit/inner/__init__.py": ""}, "expkit.inner is not in setup.cfg"),
        ({"expkit/inner/part.py": ""}, "expkit.inner is not in setup.cfg"),
        (
            {"setup.cfg": CLEAN["setup.cfg"].replace("sam", "sam\n    swa")},
            "swa has no code",
        ),
    ],
)
def test_a_package_outside_the_whitelist_is_found(tmp_path, tree, problem):
    checkout.plant(tmp_path, CLEAN | tree)
    assert list(whitelist_problems(tmp_path)) == ([problem] if problem else [])


def test_a_folder_that_is_no_package_is_found(tmp_path):
    tree = {k: v for k, v in CLEAN.items() if k != "expkit/__init__.py"}
    checkout.plant(tmp_path, tree | {"expkit/loop.py": ""})
    assert list(whitelist_problems(tmp_path)) == ["expkit has no __init__.py"]


GOOD = [
    "expkit/__init__.py",
    "expkit/py.typed",
    "expkit/templates/page.css",
    "planted-1.dist-info/licenses/LICENSE",
    "sam/__init__.py",
    "sam/py.typed",
    "sam/rule.py",
]


def test_the_wheel_of_a_clean_tree_passes(tmp_path):
    root = checkout.plant(tmp_path / "root", CLEAN)
    with zipfile.ZipFile(build(root, tmp_path)) as archive:
        names = archive.namelist()
    assert set(GOOD) <= set(names)
    assert list(content_problems(root, names)) == []


@pytest.mark.parametrize(
    "name", ["configs/sam/digits.py", "tests/x.py", "sam/demo.ipynb", "sam/README.md"]
)
def test_what_does_not_belong_in_a_wheel_is_found(tmp_path, name):
    root = checkout.plant(tmp_path, CLEAN)
    (problem,) = content_problems(root, [*GOOD, name])
    assert problem == f"{name} does not belong in the wheel"


@pytest.mark.parametrize("name", [n for n in GOOD if n != "expkit/__init__.py"])
def test_what_a_wheel_lacks_is_found(tmp_path, name):
    root = checkout.plant(tmp_path, CLEAN)
    (problem,) = content_problems(root, [n for n in GOOD if n != name])
    assert (
        problem
        == f"{name.rpartition('/')[2] if 'LICENSE' in name else name} is missing"
    )


@pytest.mark.parametrize(
    ("init", "problem"),
    [
        ("__all__ = []", None),
        ("import sqlite3\n__all__ = []", "import planted_sam loads sqlite3"),
        ("__all__ = ['sam']", "planted_sam.__all__ has no sam"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("__all__ = []\n__file__ = '/x.py'", "import planted_sam finds /x.py"),
    ],
)
def test_a_heavy_or_broken_import_is_found(tmp_path, init, problem):
    folder = tmp_path / "installed"
    # What one package loads is no problem of the next.
    tree = {"planted_sam/__init__.py": init, "planted_two/__init__.py": "__all__ = []"}
    checkout.plant(folder, tree)
    found = import_problems(folder, ["planted_sam", "planted_two"], ("sqlite3",))
    assert len(found) == bool(problem)
    assert (problem or "") in " ".join(found)
