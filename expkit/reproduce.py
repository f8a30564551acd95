"""Runs every package's experiments, each in its own process, and writes the report.

    python -m expkit.reproduce [package ...] [--full] [--out DIR] [--only WHAT]

For each package: its claims are listed, its default training run is made, and the
claims of each of its experiments are measured. Two steps run at a time, because one
process leaves a second core idle while it compiles; those that measure time come last,
alone. A step that fails is a row in the report; the others still run. The same command
again keeps what is finished.
"""

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from expkit import environment
from expkit.claim_rows import CRASHED, Row, is_crashed
from expkit.command_line import Parser, unknown, usable_folder
from expkit.driver import MAX_MEMORY, Driver, Step
from expkit.formatting import duration
from expkit.report import counts
from expkit.streams import keep_going

JOBS = 2
"""Steps that run at a time, unless the command says otherwise."""

TOLD_LINES = 5
"""Last lines of the log of a failed step that the terminal shows."""


def packages(root: Path) -> list[str]:
    """Names of the packages of a checkout that can be reproduced.

    Args:
        root: folder of the checkout.

    Returns:
        The folders that hold both `claims.py` and `main.py`, sorted.
    """
    found = (file.parent for file in root.glob("*/claims.py"))
    return sorted(folder.name for folder in found if (folder / "main.py").is_file())


def _tally(rows: Sequence[Row]) -> str:
    """How many rows of each verdict."""
    crashed = sum(map(is_crashed, rows))
    found = counts(row for row in rows if not is_crashed(row)) | {CRASHED: crashed}
    return (
        ", ".join(f"{n} {verdict}" for verdict, n in found.items() if n) or "no claim"
    )


class Progress:
    """A line for each finished step, and a bar where there is a terminal."""

    def __init__(self, driver: Driver, steps: Sequence[Step]):
        from tqdm import tqdm

        self.driver, self.steps, self.done = driver, steps, 0
        self.start = time.monotonic()
        self.counted, size = 0, shutil.get_terminal_size()
        self.bar = tqdm(
            total=sum(len(step.claims) for step in steps),
            disable=not sys.stderr.isatty(),
            leave=False,
            # A terminal may say that its size is 0 x 0; tqdm would show nothing.
            ncols=size.columns,
            nrows=size.lines,
            bar_format="{desc} {bar:24} {n_fmt}/{total_fmt} claims, {elapsed}",
        )

    def show(self, running: Collection[Step]) -> None:
        """Shows how many claims are finished.

        Args:
            running: the steps that run now.
        """
        if self.bar.disable:
            return
        names = ", ".join(f"{step.package} {step.name}" for step in running)
        self.bar.set_description_str(names, refresh=False)
        found = (min(len(self.driver.rows(s)), len(s.claims)) for s in running)
        self.bar.n = self.counted + sum(found)
        self.bar.refresh()

    def finish(self, step: Step, status: Row) -> None:
        """Says what became of a step.

        Args:
            step: the step.
            status: its status.
        """
        self.done += 1
        self.counted += len(step.claims)
        self.bar.n = self.counted
        ids = {claim["id"] for claim in step.claims}
        rows = [row for row in self.driver.rows(step) if row["id"] in ids]
        text = _tally(rows) if step.claims else "trained"
        if status["state"] != "finished":
            text = status["state"].upper() + (f", {_tally(rows)}" if rows else "")
        elapsed, width = time.monotonic() - self.start, len(str(len(self.steps)))
        remaining = len(self.steps) - self.done
        left = 0.0  # the mean so far: steps differ, and an early one is a guess
        if self.driver.interrupt.signum is None:
            left = elapsed / self.done * remaining
        own, total, rest = map(duration, (status["seconds"], elapsed, left))
        text += f"  ({own}; {total} in all" + (f", about {rest} left)" if left else ")")
        where = f"[{self.done:{width}}/{len(self.steps)}] {step.package} {step.name}"
        self.say(f"{where}: {text}")

    def say(self, line: str) -> None:
        """Prints a line above the bar.

        Args:
            line: the line.
        """
        self.bar.write(line, file=sys.stdout)
        sys.stdout.flush()


def _tell_failure(driver: Driver, step: Step, status: Row) -> list[str]:
    """What repeats the step, where its log is, and why it failed."""
    place = f"{status['how']}, log in {driver.folder(step) / 'log.txt'}"
    why = [
        f"{row['id']} {row['details']}" for row in driver.rows(step) if is_crashed(row)
    ]
    if not why or status["exit"] < 0:
        why += status["log"][-TOLD_LINES:]
    return [f"  {step.command}", f"  {place}", *(f"    {line}" for line in why)]


def _plans(
    driver: Driver, names: Sequence[str], flags: str, jobs: int
) -> list[dict[str, Any]]:
    """What the packages claim; a package that cannot say is told and left out."""

    def ask(name: str) -> dict[str, Any] | None:
        if driver.interrupt.signum is not None:
            return None
        return driver.plan(name, f"./reproduce.sh {name}{flags}")

    with ThreadPoolExecutor(jobs) as pool:
        plans = dict(zip(names, pool.map(ask, names), strict=True))
    for name, plan in plans.items():
        if plan is None and driver.interrupt.signum is None:
            log = driver.out / name / "plan" / "log.txt"
            print(f"{name}: FAILED to list its claims, see {log}", flush=True)
    return [plan for plan in plans.values() if plan is not None]


def _work(driver: Driver, steps: Sequence[Step], jobs: int) -> None:
    progress = Progress(driver, steps)
    try:
        _run_together([s for s in steps if not s.alone], jobs, driver, progress)
        _run_together([s for s in steps if s.alone], 1, driver, progress)
    finally:
        progress.bar.close()


def _run_together(
    steps: Sequence[Step], jobs: int, driver: Driver, progress: Progress
) -> None:
    """Runs steps, in their order, some at a time; writes the report after each."""
    waiting, running = list(steps), {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    step = waiting.pop(0)
                    running[pool.submit(driver.execute, step)] = step
                progress.show(running.values())
                ended, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    _tell(driver, progress, running.pop(future), future.result())
                if driver.interrupt.signum is not None:
                    waiting.clear()
        except BaseException:
            driver.interrupt.note(signal.SIGTERM)  # ends what still runs
            raise


def _tell(driver: Driver, progress: Progress, step: Step, status: Row) -> None:
    """Says what became of a step, and puts it in the report."""
    progress.finish(step, status)
    if status["state"] == "failed":
        for line in _tell_failure(driver, step, status):
            progress.say(line)
    driver.write_report("running")


def _unknown_part(plans: Sequence[dict[str, Any]], only: str) -> str:
    """What is wrong with an `only` that names nothing of the plans."""
    if "/" not in only:
        return unknown("claim", only, [c["id"] for p in plans for c in p["claims"]])
    parts = [f"{plan['package']}/{e}" for plan in plans for e in plan["experiments"]]
    return unknown("experiment", only, parts)


def _parse(argv: Sequence[str] | None, root: Path) -> tuple[Parser, Any]:
    parser = Parser(prog="./reproduce.sh", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="package", help="default: all")
    parser.add_argument("--full", action="store_true", help="all seeds; takes hours")
    parser.add_argument("--out", type=Path, default=root / "out", metavar="DIR")
    parser.add_argument(
        "--only",
        metavar="WHAT",
        help="measure one claim, by its id, or one experiment, as package/experiment",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=JOBS,
        metavar="N",
        help="steps that run at a time (default: %(default)d)",
    )
    parser.add_argument(
        "--max-memory",
        type=float,
        default=MAX_MEMORY,
        metavar="GIB",
        help="a step that takes more is ended (default: %(default)g)",
    )
    arguments = parser.parse_args(argv)
    if not arguments.max_memory > 0:
        parser.error(f"--max-memory must be above 0, got {arguments.max_memory:g}.")
    if not arguments.jobs >= 1:
        parser.error(f"--jobs must be at least 1, got {arguments.jobs}.")
    if not (root / "setup.cfg").is_file():
        parser.error(f"{root} is not the root of the checkout: it has no setup.cfg.")
    known = packages(root)
    for name in arguments.packages:
        if name not in known:
            parser.error(unknown("package", name, known))
    arguments.packages = list(dict.fromkeys(arguments.packages)) or known
    if not known:
        parser.error("no folder here holds both claims.py and main.py.")
    arguments.out = Path(os.environ.get("REPRODUCE_CALLED_FROM", ""), arguments.out)
    if arguments.out.is_absolute() and arguments.out.is_relative_to(root):
        arguments.out = Path(os.path.relpath(arguments.out, root))
    if problem := usable_folder(arguments.out):
        parser.error(problem)
    return parser, arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0 when everything ran, whatever the verdicts; 1 when a step failed, or the
        folder could not be written; 130 after Ctrl-C, 143 after SIGTERM, 129 after
        SIGHUP.

    Raises:
        SystemExit: with status 2 and one line for wrong arguments.
    """
    keep_going()
    root = Path.cwd()
    given = sys.argv[1:] if argv is None else list(argv)
    parser, arguments = _parse(argv, root)
    command = shlex.join(["./reproduce.sh", *given])
    description = environment.describe(root, full=arguments.full, command=command)
    driver = Driver(root, arguments.out, description, arguments.max_memory)
    flags = " --full" if arguments.full else ""
    if (out := f"--out={arguments.out.as_posix()}") != "--out=out":
        flags += f" {shlex.quote(out)}"
    try:
        with driver.interrupt:
            plans = _plans(driver, arguments.packages, flags, arguments.jobs)
            only, steps = arguments.only, []
            for plan in plans:
                steps += driver.steps(plan, only)
            if only is not None and not steps and driver.interrupt.signum is None:
                parser.error(_unknown_part(plans, only))
            _work(driver, steps, arguments.jobs)
            stopped = driver.interrupt.signum
            rows = driver.write_report("finished" if stopped is None else "interrupted")
    except OSError as error:  # such as a full disk
        print(f"./reproduce.sh: {error}; rerun to resume.", file=sys.stderr, flush=True)
        return 1
    for name in dict.fromkeys(row["package"] for row in rows):
        print(f"{name}: {_tally([row for row in rows if row['package'] == name])}")
    print(f"report: {(arguments.out / 'report.html').as_posix()}", flush=True)
    return 128 + stopped if stopped is not None else int(bool(driver.failed))


if __name__ == "__main__":
    sys.exit(main())
