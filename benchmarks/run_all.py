"""Runs the benchmarks one after the other, and writes their tables.

    python benchmarks/run_all.py [NAME ...]

Each is a process of its own, and has the machine for itself. What was measured at this
commit lies in `out/benchmarks/` and is not measured again, so an interrupted run goes
on. In the end all goes to `benchmarks/results/` and its README. `zh_char` takes an hour
and runs by name only; `faults` and `mutants` measure no time and run by themselves.
Peers that are installed are measured too:
`python -m pip install -r benchmarks/requirements.txt`.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import device_name

from expkit import environment

ROOT = Path(__file__).parents[1]
TOOLS = ("faults", "measuring", "mutants", "mutations", "render", "run_all")
BY_NAME = ("zh_char",)


def scripts(folder: Path) -> list[str]:
    """Names of the benchmarks of a folder."""
    return [p.stem for p in sorted(folder.glob("*.py")) if p.stem not in TOOLS]


def measure(script: Path, out: Path) -> str | None:
    """Runs a benchmark unless its result is there; returns what went wrong."""
    if out.exists():
        print(f"{script.stem}: measured at this commit already", flush=True)
        return None
    start = time.monotonic()
    unfinished = out.with_suffix(".part")
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(unfinished)],
        cwd=script.parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seconds = time.monotonic() - start
    if done.returncode or not unfinished.exists():
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        return f"{script.stem}: exit status {done.returncode}: {last}"
    unfinished.rename(out)
    print(f"{script.stem}: {seconds:.0f} s", flush=True)
    return None


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    folder = root / "benchmarks"
    known = scripts(folder)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    names = parser.parse_args(argv).names or [n for n in known if n not in BY_NAME]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(
            f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}."
        )
    commit = environment.commit(root)
    if commit is None or "modified" in commit:
        parser.error(f"results name a commit, and this is {commit}; commit first.")
    out = root / "out/benchmarks" / commit
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{name}-{device_name()}.json" for name in names}
    failed = [measure(folder / f"{name}.py", files[name]) for name in names]
    for message in filter(None, failed):
        print(message, file=sys.stderr)
    for file in files.values():
        if file.exists():
            shutil.copy(file, folder / "results" / file.name)
    subprocess.run([sys.executable, str(folder / "render.py")], cwd=root, check=True)
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
