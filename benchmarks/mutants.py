"""What share of seeded mutants of the methods the tests kill.

    python benchmarks/mutants.py

A mutant is a method module with one change by an operator of cosmic-ray (an optional
tool: `pip install cosmic-ray`). They are drawn with a seed, over the modules in
proportion to their lines, and run in a copy of the checkout: first the tests of their
module, the quickest first; `--rest` tries the other tests of the package on those that
are left. Each mutant is a fork of this process, and a test has a limit on its processor
time. A test that fails must have passed elsewhere, or passes without the mutation.
A finished mutant is not run again: rerun the script to go on. `--again` runs those that
survived without a reason.

`equivalent_mutants.json` says of a survivor why no test can tell it from the original.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
SETTINGS = {
    "XLA_FLAGS": FLAGS,
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / "out/mutants-cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
os.environ.update(SETTINGS)  # before JAX is imported

import checkout  # noqa: E402
import hypothesis  # noqa: E402, F401
import jax  # noqa: E402, F401
import mutations  # noqa: E402
import optax  # noqa: E402, F401
import pytest  # noqa: E402
import scipy.special  # noqa: E402
import scipy.stats  # noqa: E402, F401
from flax import nnx  # noqa: E402, F401

from expkit import environment, jsonfile  # noqa: E402

OUT = ROOT / "benchmarks/results/mutants.json"
EQUIVALENT = ROOT / "benchmarks/equivalent_mutants.json"
TIMES = ROOT / "out/mutants-times.json"
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
PASSED, FAILED, NO_TESTS = 0, 1, 5
SECONDS = 90
COLUMNS = {
    name: name
    for name in ("package", "mutants", "run", "killed", "timeout", "equivalent")
} | {"survived": "survived", "share": "% killed"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of module names")
    parser.add_argument(
        "--rest", action="store_true", help="other tests of the package"
    )
    parser.add_argument("--again", action="store_true", help="survivors once more")
    parser.add_argument("--show", action="store_true", help="print survivors, run none")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    mutants = mutations.draw(options.number, options.seed)
    content = jsonfile.read(options.out, {})
    drawn = {"number": options.number, "seed": options.seed}
    if content and {key: content.get(key) for key in drawn} != drawn:
        raise SystemExit(f"{options.out} is of other mutants; remove it or use --out.")
    content |= drawn
    rows = content.setdefault("mutants", [])
    known = {key_of(row): row for row in rows}
    # A mutant of a module that has changed since is no longer drawn.
    rows[:] = [known.get(key_of(m), as_row(m)) | {"line": m["line"]} for m in mutants]
    if options.show:
        return show(mutants, rows)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "tree")
        for mutant, row in in_turn(mutants, rows, options):
            row |= bench.measure(mutant, is_rest=options.rest)
            print(row["module"], row["line"], row["outcome"], flush=True)
            jsonfile.write(options.out, finished(content))
    jsonfile.write(options.out, finished(content))
    return None


def in_turn(mutants, rows, options):
    """The mutants that are to be run, spread over the packages at any time."""
    pairs = list(zip(mutants, rows, strict=True))
    random.Random(options.seed).shuffle(pairs)
    for mutant, row in pairs:
        is_left = row["outcome"] == "survived" and "reason" not in row
        is_due = is_left if options.rest or options.again else row["outcome"] is None
        if is_due and any(part in row["module"] for part in options.only):
            yield mutant, row


def key_of(row):
    """What makes a mutant the same after lines above it have moved."""
    return tuple(row[key] for key in ("module", "operator", "occurrence", "before"))


def as_row(mutant):
    """A mutant that has not been run, as it is written."""
    kept = ("module", "line", "operator", "occurrence", "before", "after")
    return {key: mutant[key] for key in kept} | {"outcome": None}


def show(mutants, rows):
    reasons = {key_of(row) for row in jsonfile.read(EQUIVALENT, [])}
    for mutant, row in zip(mutants, rows, strict=True):
        if row["outcome"] == "survived" and key_of(row) not in reasons:
            print(f"\n{row['module']}:{row['line']} {row['operator']}")
            print(f"- {mutant['before']}\n+ {mutant['after']}")


class Quickest:
    """A plugin of pytest that runs the quickest tests first and limits each one.

    Attributes:
        known: seconds of tests; those that have not been run come first, and those
            that fail without a mutation (None) are left out.
        passed, failed: the same of the tests that have been run.
    """

    def __init__(self, known):
        self.known, self.passed, self.failed = known, {}, []

    def pytest_collection_modifyitems(self, items):  # noqa: D102
        known = [(self.known.get(item.nodeid, 0.0), item) for item in items]
        known = [pair for pair in known if pair[0] is not None]
        items[:] = [item for _, item in sorted(known, key=lambda pair: pair[0])]

    def pytest_runtest_setup(self):  # noqa: D102
        set_limit()

    def pytest_runtest_logreport(self, report):  # noqa: D102
        if report.failed:
            self.failed.append(report.nodeid)
        total = self.passed.pop(report.nodeid, 0.0) + report.duration
        if report.nodeid not in self.failed:
            self.passed[report.nodeid] = total


def set_limit():
    """Has the system end this process after `SECONDS` more of processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


class Bench:
    """A copy of the checkout in which mutants are run."""

    def __init__(self, tree):
        self.tree, self.known = tree, jsonfile.read(TIMES, {})
        for file in checkout.files(ROOT):
            if not (ROOT / file).is_symlink():
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, tree / file)

    def measure(self, mutant, *, is_rest):
        """The outcome of a mutant."""
        files = self.tests(mutant["module"], is_rest=is_rest)
        place = self.tree / mutant["module"]
        original = place.read_text(encoding="utf-8")
        start = time.monotonic()
        while True:
            place.write_text(mutant["text"], encoding="utf-8")
            status, failed = self.run(files)
            place.write_text(original, encoding="utf-8")
            killer = failed[0] if failed else None
            if not killer or killer in self.known or self.run([killer])[0] == PASSED:
                break
            self.known[killer] = None
        is_error = not killer and status not in (PASSED, NO_TESTS, None)  # of imports
        if is_error and self.run(["--collect-only", *files])[0] != PASSED:
            raise SystemExit(f"{files} cannot be run without a mutation.")
        outcome = {PASSED: "survived", NO_TESTS: "survived", None: "timeout"}
        return {
            "outcome": outcome.get(status, "killed"),
            "tests": "package" if is_rest else "module",
            "killed_by": killer,
            "seconds": round(time.monotonic() - start, 1),
        }

    def tests(self, module, *, is_rest):
        """The files with the tests of a module, or the others of its package."""
        package, name = module.removesuffix(".py").split("/")
        folder = self.tree / "tests" / package
        own = {folder / f"test_{name}.py", *folder.glob(f"test_{name}_*.py")}
        found = set(folder.glob("test_*.py")) - own if is_rest else own
        return sorted(file.relative_to(self.tree).as_posix() for file in found)

    def run(self, tests):
        """The status of pytest in a fork, None past the limit, and what failed."""
        log = self.tree.parent / "tests.json"
        log.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            self.become(tests, log)
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        code = os.waitstatus_to_exitcode(status)
        content = jsonfile.read(log, {"passed": {}, "failed": []})
        self.known = content["passed"] | self.known
        jsonfile.write(TIMES, self.known)
        return (None if code == -signal.SIGXCPU else code), content["failed"]

    def become(self, tests, log):
        """Runs the tests in this process, which is a fork, and ends it."""
        status = FAILED
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            set_limit()
            resource.setrlimit(resource.RLIMIT_DATA, (2**33, 2**33))
            with (self.tree.parent / "output").open("w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.chdir(self.tree)
            sys.dont_write_bytecode = True  # the source changes
            for place in (str(ROOT), str(ROOT / "tests/support")):
                sys.path.remove(place)
            ours = ("checkout", "expkit", *checkout.paper_packages(ROOT))
            for name in [n for n in sys.modules if n.partition(".")[0] in ours]:
                del sys.modules[name]
            sys.path.insert(0, str(self.tree))
            plugin = Quickest(self.known)
            status = int(pytest.main([*PYTEST, *tests], plugins=[plugin]))
            content = {"passed": plugin.passed, "failed": plugin.failed}
            log.write_text(json.dumps(content))
        finally:
            os._exit(status)


def finished(content):
    """The content of the file: with reasons, counts and where they come from."""
    reasons = {key_of(row): row["reason"] for row in jsonfile.read(EQUIVALENT, [])}
    for row in content["mutants"]:
        row.pop("reason", None)
        if row["outcome"] == "survived" and key_of(row) in reasons:
            row["reason"] = reasons[key_of(row)]
    packages = sorted({row["module"].partition("/")[0] for row in content["mutants"]})
    tables = [counts(content["mutants"], package) for package in packages]
    content["question"] = "Which share of mutants the tests kill."
    content["notes"] = (
        f"{content['number']} mutants of the method modules by the operators of "
        f"cosmic-ray, seed {content['seed']}. A mutant past its processor time counts "
        "as killed. Equivalent: a survivor with a reason in `equivalent_mutants.json`."
    )
    content["columns"] = {"Mutants": COLUMNS}
    content["tables"] = {"Mutants": [*tables, counts(content["mutants"], "")]}
    command = "python benchmarks/mutants.py"
    device = {"platform": "cpu", "kind": "cpu", "count": 1}
    where = environment.describe(ROOT, full=True, command=command)
    content["environment"] = where | {"device": device}
    return content


def counts(mutants, package):
    """A row of the table; of all packages when none is named."""
    own = [row for row in mutants if row["module"].startswith(package)]
    ran = [row for row in own if row["outcome"]]
    number = {
        name: sum(row["outcome"] == name for row in ran)
        for name in ("killed", "timeout", "survived")
    }
    dead = number["killed"] + number["timeout"]
    number["equivalent"] = sum("reason" in row for row in ran)
    number["survived"] -= number["equivalent"]
    return {
        "package": package or "all",
        "mutants": len(own),
        "run": len(ran),
        "share": round(100 * dead / len(ran), 1) if ran else None,
    } | number


if __name__ == "__main__":
    main()
