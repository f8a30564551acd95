"""What holds for all text files, and how metadata, lock and ignored files agree."""

import ast
import fnmatch
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import checkout
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The brackets keep this file from matching.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")
MACHINE = re.compile(r"(?<![\w.~}:/-])/(home|root|work|mnt|Users)/\w")
UNWRITTEN = re.compile(r"^ *raise NotImplementedError\b", re.MULTILINE)
EXACT = {"snownlp"}
UNWANTED = {"torch", "tensorflow", "tensorflow-cpu", "tf-nightly"}
NAMES = {"LICENSE", "run", "py.typed", ".gitignore"}
KINDS = (
    *(".cfg", ".css", ".csv", ".in", ".ipynb", ".jinja", ".json", ".lock", ".md"),
    *(".py", ".safetensors", ".sh", ".svg", ".toml", ".txt", ".yml"),
)
IGNORED = (".venv", "out", "site", "build", "dist", "__pycache__", "lion.egg-info")


def unfinished_or_local(text: str) -> Iterator[str]:
    """Marks of unfinished work and paths of one machine, as `line: what`."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern in (UNFINISHED, MACHINE):
            if match := pattern.search(line):
                yield f"{number}: {match[0]}"


def unwritten(root: Path) -> list[str]:
    """Modules of the product with a function that is not written yet."""
    return [
        file.relative_to(root).as_posix()
        for file in checkout.product_modules(root)
        if UNWRITTEN.search(file.read_text(encoding="utf-8"))
    ]


def broken_links(root: Path, file: Path) -> Iterator[str]:
    """Relative links of a Markdown file that lead nowhere."""
    text = (root / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        is_local = not re.match(r"\w+:", target)
        if is_local and not (root / file.parent / target).exists():
            yield f"{file}: {target}"


def requirements(root: Path) -> list[Requirement]:
    """Everything that setup.cfg asks for, extras included."""
    config = checkout.setup_cfg(root)
    texts = [config["options"]["install_requires"]]
    if config.has_section("options.extras_require"):
        texts += config["options.extras_require"].values()
    return [Requirement(line) for text in texts for line in checkout.lines_of(text)]


def bounds(root: Path) -> Iterator[str]:
    """Requirements that are not just a lower bound, and heavy ones."""
    for requirement in requirements(root):
        name = canonicalize_name(requirement.name)
        operators = {specifier.operator for specifier in requirement.specifier}
        if operators != ({"=="} if name in EXACT else {">="}):
            yield f"setup.cfg: {requirement}: only a lower bound"
        if name in UNWANTED:
            yield f"setup.cfg: {requirement}: nothing here needs it"


def lock_problems(root: Path) -> Iterator[str]:
    """Lines without version and hash, and requirements that the lock does not meet."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    pinned: dict[str, set[str]] = {}
    for line in checkout.lines_of(text.replace("\\\n", " ")):
        match = re.match(r"([\w.-]+)==([\w.!+-]+)( ;[^-]*)? +--hash=sha256:\w", line)
        if match is None:
            yield f"requirements.lock: {line[:40]!r} is not pinned with a hash"
            continue
        name = canonicalize_name(match[1])
        pinned.setdefault(name, set()).add(match[2])
        if name in UNWANTED or name.startswith("nvidia-"):
            yield f"requirements.lock: {name}: nothing here needs it"
    for requirement in requirements(root):
        versions = pinned.get(canonicalize_name(requirement.name), set())
        if not any(map(requirement.specifier.contains, versions)):
            yield f"requirements.lock: {sorted(versions)} do not meet {requirement}"


def lists_of_packages(root: Path) -> Iterator[str]:
    """Lists of our packages, beside the one in setup.cfg, that lack one."""
    papers = checkout.paper_packages(root)
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    checked = project["tool"]["pyrefly"]["project-includes"]
    conftest = (root / "tests/conftest.py").read_text(encoding="utf-8")
    readme = (root / "README.md").read_text(encoding="utf-8")
    for package in [checkout.HOUSE, *papers]:
        if not any(fnmatch.fnmatchcase(package, pattern) for pattern in checked):
            yield f"pyproject.toml: pyrefly does not check {package}"
        if not _mentions(conftest, package):
            yield f"tests/conftest.py: warnings of {package} are no errors"
    for package in papers:
        if f"({package}/README.md)" not in readme:
            yield f"README.md: no link to {package}"


def _mentions(conftest: str, package: str) -> bool:
    """Whether OUR_PACKAGES holds the package, or is computed and not a list."""
    for node in ast.parse(conftest).body:
        names = [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
        if names == ["OUR_PACKAGES"] and isinstance(node.value, ast.Tuple | ast.List):
            return package in ast.literal_eval(node.value)
    return "OUR_PACKAGES" in conftest


def release_problems(root: Path) -> Iterator[str]:
    """A version without an entry in the changelog, and a file that git would take."""
    version = checkout.setup_cfg(root)["metadata"]["version"]
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[?{re.escape(version)}\b", changes, re.MULTILINE):
        yield f"CHANGELOG.md: no entry for {version}"
    patterns = checkout.lines_of((root / ".gitignore").read_text(encoding="utf-8"))
    for name in IGNORED:
        if not checkout.is_ignored(name, patterns, "/"):
            yield f".gitignore: {name} is not ignored"


def test_text_files_hold_no_unfinished_work_and_no_path_of_a_machine(repository_root):
    found = []
    for file in checkout.files(repository_root):
        try:
            text = (repository_root / file).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{file}:{problem}" for problem in unfinished_or_local(text)]
    assert found == []


def strangers(root: Path) -> list[str]:
    """Files of a kind that no part of the project has, such as a downloaded archive."""
    return [
        file.as_posix()
        for file in checkout.files(root)
        if file.name not in NAMES and file.suffix not in KINDS
    ]


def test_every_file_is_of_a_known_kind(repository_root):
    assert strangers(repository_root) == []


def test_a_file_of_another_kind_is_found(tmp_path):
    tree = ("LICENSE", "a/b.py", "a-1.0-py3.whl", "core")
    checkout.plant(tmp_path, dict.fromkeys(tree, ""))
    assert strangers(tmp_path) == ["a-1.0-py3.whl", "core"]


def test_everything_is_written(repository_root):
    assert unwritten(repository_root) == []


def test_links_between_files_lead_somewhere(repository_root):
    pages = [f for f in checkout.files(repository_root) if f.suffix == ".md"]
    assert [p for page in pages for p in broken_links(repository_root, page)] == []


@pytest.mark.parametrize(
    "rule", [bounds, lock_problems, lists_of_packages, release_problems]
)
def test_metadata_agree(repository_root, rule):
    assert list(rule(repository_root)) == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("# TO_DO: later", True),
        ("FIX_ME", True),
        ("see /ro_ot/x.py", True),
        ("'/ho_me/someone/x'", True),
        ("https://example.org/ho_me/x", False),
        ("a path of the kind out/wo_rk/x, or ~/data", False),
        ("#!/usr/bin/env bash", False),
    ],
)
def test_unfinished_work_and_paths_are_found(line, is_found):
    # The gaps keep this file from matching.
    line = line.replace("_", "")
    assert bool(list(unfinished_or_local(f"\n{line}\n"))) == is_found


def test_an_unwritten_function_is_found(tmp_path):
    tree = {
        "expkit/a.py": "try:\n    f()\nexcept NotImplementedError:\n    pass\n",
        "expkit/b.py": "def f():\n    raise NotImplementedError('later')\n",
    }
    assert unwritten(checkout.plant(tmp_path, tree)) == ["expkit/b.py"]


def test_a_broken_link_is_found(tmp_path):
    page = "[a](lion/README.md#x) [b](https://x.org) [c](lion) [d](no.md) [e](#f)"
    checkout.plant(tmp_path, {"README.md": page, "lion/README.md": "[g](../no.md)"})
    assert list(broken_links(tmp_path, Path("README.md"))) == ["README.md: no.md"]
    assert len(list(broken_links(tmp_path, Path("lion/README.md")))) == 1


SETUP = """
[metadata]
version = 0.1.0
[options]
packages =
    expkit
    sam
install_requires =
    jax >= 0.10
[options.extras_require]
data =
    # a comment
    snownlp == 0.12.3
    scikit_learn >= 1.6
"""
LOCK = """# a comment
jax==0.10.2 \\
    --hash=sha256:ab \\
    --hash=sha256:cd
appnope==1.0 ; sys_platform == 'darwin' \\
    --hash=sha256:ab
scikit-learn==1.6 --hash=sha256:ab
snownlp==0.12.3 --hash=sha256:ab
"""
CLEAN = {
    "setup.cfg": SETUP,
    "requirements.lock": LOCK,
    "pyproject.toml": "[tool.pyrefly]\nproject-includes = ['expkit', 'sam']",
    "tests/conftest.py": "OUR_PACKAGES = ('expkit', 'sam')",
    "README.md": "[sam](sam/README.md)",
    "CHANGELOG.md": "# Changes\n\n## 0.1.0 (unreleased)\n",
    ".gitignore": ".venv*/\nout/\nsite/\nbuild/\ndist/\n__pycache__/\n*.egg-info/\n",
}


def test_metadata_that_agree_pass(tmp_path):
    root = checkout.plant(tmp_path, CLEAN)
    rules = (bounds, lock_problems, lists_of_packages, release_problems)
    assert [problem for rule in rules for problem in rule(root)] == []


@pytest.mark.parametrize(
    ("rule", "file", "old", "new"),
    [
        (bounds, "setup.cfg", "jax >= 0.10", "jax >= 0.10, < 0.11"),
        (bounds, "setup.cfg", "jax >= 0.10", "jax == 0.10"),
        (bounds, "setup.cfg", "scikit_learn >= 1.6", "scikit_learn"),
        (bounds, "setup.cfg", "scikit_learn", "torch"),
        (lock_problems, "setup.cfg", "jax >= 0.10", "jax >= 0.11"),
        (lock_problems, "setup.cfg", "scikit_learn >= 1.6", "scipy >= 1.6"),
        (lock_problems, "requirements.lock", "appnope==", "appnope>="),
        (lock_problems, "requirements.lock", "'darwin' \\\n    --hash=", "'darwin' #"),
        (lock_problems, "requirements.lock", "appnope", "nvidia-cudnn"),
        (lists_of_packages, "pyproject.toml", "'sam'", "'swa'"),
        (lists_of_packages, "tests/conftest.py", "'sam'", "'swa'"),
        (lists_of_packages, "README.md", "sam/README.md", "sam"),
        (release_problems, "CHANGELOG.md", "0.1.0", "0.0.9"),
        (release_problems, ".gitignore", "out/", "outer/"),
    ],
)
def test_metadata_that_disagree_are_found(tmp_path, rule, file, old, new):
    assert old in CLEAN[file]
    checkout.plant(tmp_path, CLEAN | {file: CLEAN[file].replace(old, new)})
    (problem,) = rule(tmp_path)
    assert problem.startswith(("setup.cfg", "requirements.lock", file))


def test_ignored_files_are_left_out(tmp_path):
    tree = (
        ".venv-3/x",
        "out/y",
        "a/out/z",
        "a/b.py",
        "c.egg-info/d",
        ".git/e",
        "out.md",
    )
    checkout.plant(tmp_path, CLEAN | dict.fromkeys(tree, ""))
    found = {file.as_posix() for file in checkout.files(tmp_path)}
    assert found == CLEAN.keys() | {"a/b.py", "out.md"}
    checkout.plant(tmp_path, {".gitignore": "a/b\n"})
    with pytest.raises(ValueError, match="keep to names"):
        checkout.files(tmp_path)
