"""Where a result comes from: package versions, hardware, and a digest of the code.

fingerprint(Path.cwd(), "lion", full=False)["source"]   # changes with lion/*.py
"""

import ast
import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from expkit import syntax

NUMERICAL = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
"""Distributions whose version can change a measured number."""

OTHERS = (
    "chex",
    "grain",
    "matplotlib",
    "ml-collections",
    "orbax-checkpoint",
    "tensorflow-datasets",
)

PRESENTATION = (
    "app.py",
    "command_line.py",
    "driver.py",
    "formatting.py",
    "plots.py",
    "processes.py",
    "progress.py",
    "report.py",
    "reproduce.py",
    "results.py",
    "signals.py",
    "streams.py",
)
"""Modules of `expkit` that start, stop, draw or show results and compute none."""

PYTHON = ".venv/bin/python"
"""The interpreter in the printed commands: that of the environment of the checkout."""


def versions(names: Iterable[str] = NUMERICAL + OTHERS) -> dict[str, str]:
    """Installed versions, without importing anything.

    Args:
        names: names of distributions.

    Returns:
        `{name: version}` of those that are installed.
    """
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.lru_cache(maxsize=4096)  # a report asks for every experiment
def _imported(source: bytes) -> frozenset[str]:
    """Top-level names that a module imports."""
    try:
        tree = syntax.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return frozenset(name.partition(".")[0] for name in names)


def source_digest(root: Path, package: str, *, presentation: bool = True) -> str:
    """Digest of the code behind a package's results.

    It covers the package, the checkout's packages it imports (also indirectly), its
    configs and `expkit`: a change in any of them may change a number.

    Args:
        root: folder of the checkout.
        package: name of a package in it; "" for `expkit` alone.
        presentation: whether the modules that compute nothing count too.

    Returns:
        Sixteen hexadecimal digits.
    """
    here = Path(__file__).parent
    skipped = () if presentation else [f"expkit/{name}" for name in PRESENTATION]
    files = {f"expkit/{f.relative_to(here)}": f for f in here.rglob("*.py")}
    files = {name: f for name, f in files.items() if name not in skipped}
    pending, seen = [package] if package else [], {"expkit", "configs", "tests"}
    while pending:
        folder = pending.pop()
        if folder in seen:
            continue
        seen.add(folder)
        own = [
            *(root / folder).rglob("*.py"),
            *(root / "configs" / folder).glob("*.py"),
        ]
        files |= {f.relative_to(root).as_posix(): f for f in own}
        tops = frozenset().union(*(_imported(file.read_bytes()) for file in own))
        pending += [top for top in tops if (root / top).is_dir()]
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def fingerprint(root: Path, package: str, *, full: bool) -> dict[str, Any]:
    """What has to agree for a finished claim to count as finished in a later run.

    Args:
        root: folder of the checkout.
        package: name of a package in it.
        full: whether the run uses all seeds.

    Returns:
        A JSON object: mode, Python version, package versions, source digest.
    """
    return {
        "full": bool(full),
        "python": platform.python_version(),
        "versions": versions(NUMERICAL),
        "source": source_digest(root, package),
    }


def device() -> dict[str, Any] | None:
    """The devices JAX computes on in this process.

    Returns:
        `{"platform", "kind", "count"}`, or None when this process has not loaded JAX.
    """
    jax = sys.modules.get("jax")
    if jax is None:
        return None
    devices = jax.devices()
    first = devices[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": len(devices),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit(root: Path) -> str | None:
    """The git commit of a checkout.

    Args:
        root: folder of the checkout.

    Returns:
        The short hash, with " (modified)" when tracked files differ from it; None where
        git or its history is missing.
    """
    name = _git(root, "rev-parse", "--short", "HEAD")
    if not name:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{name} (modified)" if changes else name


def describe(root: Path, *, full: bool, command: str) -> dict[str, Any]:
    """Everything a reader needs to place the numbers of a run.

    Args:
        root: folder of the checkout.
        full: whether the run uses all seeds.
        command: the command line that started the run.

    Returns:
        A JSON object: date, mode, command, commit, python, versions, platform, cpu,
        cores, device (None until an experiment has reported where it ran).
    """
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "mode": "full" if full else "quick",
        "command": command,
        "commit": commit(root),
        "python": platform.python_version(),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": _cores(),
        "device": None,
    }
