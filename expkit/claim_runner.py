"""Runs the claims of one experiment and keeps each as soon as it is finished.

Files in `--out`: `claims.json` (a row a claim), `run.json` (what the rows were measured
with), `figures.json`, `figures/`, and `cache/` (results that claims remember).
"""

import contextlib
import json
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from expkit import environment, jsonfile, power
from expkit.claim_rows import (
    CRASHED,
    Row,
    crashed_row,
    discard_stale,
    foreign_results,
    is_crashed,
    read_rows,
)
from expkit.claims import Claim, Context, Finding
from expkit.command_line import Parser, unknown, usable_folder
from expkit.messages import one_line
from expkit.signals import STOPPING, exit_on_signals
from expkit.streams import keep_going

RESERVED = ("train", "plan")
"""Folders that `expkit.reproduce` puts beside those of the experiments."""

STATUSES = tuple(128 + signum for signum in STOPPING)
"""Exit statuses of a training run that a signal stopped."""


def _listing(package: str, claims: Sequence[Claim]) -> dict[str, Any]:
    fields = ("id", "statement", "source", "experiment", "alone")
    rows = [{field: getattr(claim, field) for field in fields} for claim in claims]
    experiments = list(dict.fromkeys(claim.experiment for claim in claims))
    return {"package": package, "experiments": experiments, "claims": rows}


def _first_line(error: BaseException) -> str:
    text = one_line(str(error).split("\n\n")[0])
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."


def _with_power(found: Finding) -> str:
    """The details of a finding, and what would have been seen."""
    seeds = None if found.seeds is None else list(found.seeds)
    said = power.sentence(
        found.measured, found.verdict, found.interval, seeds, is_ratio=found.is_ratio
    )
    return " ".join(filter(None, (found.details, said)))


def _measure(claim: Claim, context: Context, base: Row) -> Row:
    """Row of one claim; an error of its check is a row too."""
    start = time.perf_counter()
    try:
        found = claim.check(context)
        if not isinstance(found, Finding):
            raise TypeError(f"the check returned {found!r}, not a Finding.")
        row = jsonfile.plain(
            {
                "measured": found.measured,
                "interval": found.interval,
                "verdict": found.verdict,
                "seeds": None if found.seeds is None else list(found.seeds),
                "details": _with_power(found),
            }
        )
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code in STATUSES:
            raise  # training was stopped by a signal: that is not a crash
        traceback.print_exc()
        command, package = base["command"], base["package"]
        row = crashed_row(base, package, command, _first_line(error))
    return base | row | {"seconds": round(time.perf_counter() - start, 2)}


def _say(row: Row, note: str) -> None:
    measured = row["measured"]
    if isinstance(measured, float):
        measured = f"{measured:.4g}"
    verdict = CRASHED if is_crashed(row) else row["verdict"]
    print(f"{verdict:<18} {row['id']}  {measured}  ({note})", flush=True)


def _run(claims: Sequence[Claim], arguments: Any, package: str) -> int:
    """Measures what is not finished yet; 1 if a check crashed, otherwise 0."""
    out, root = arguments.out, _root()
    stamp = environment.fingerprint(root, package, full=arguments.full)
    discard_stale(out, stamp)
    finished = {
        row["id"]: row for row in read_rows(out / "claims.json") if not is_crashed(row)
    }
    flags = [f"--out={out.as_posix()}"]
    if arguments.full:
        flags.append("--full")
    start = [environment.PYTHON, "-m", f"{package}.claims"]
    start.append(f"--experiment={arguments.experiment}")
    digest = environment.source_digest(root, package, presentation=False)
    context = Context(out, arguments.full, shlex.join(start + flags), digest)
    status = 0
    for claim in claims:
        if arguments.only not in (None, claim.id):
            continue
        if claim.id in finished:
            _say(finished[claim.id], "kept")
            continue
        base = {
            "id": claim.id,
            "package": package,
            "experiment": claim.experiment,
            "statement": claim.statement,
            "source": claim.source,
            "command": shlex.join([*start, f"--only={claim.id}", *flags]),
        }
        row = finished[claim.id] = _measure(claim, context, base)
        status |= is_crashed(row)
        rows = [finished[other.id] for other in claims if other.id in finished]
        if used := environment.device():
            jsonfile.write(out / "run.json", {"fingerprint": stamp, "device": used})
        jsonfile.write(out / "claims.json", rows)
        _say(row, f"{row['seconds']:.1f} s")
    return int(status)


def _root() -> Path:
    """Folder of the checkout: two above the module that runs."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file).resolve().parent.parent if file else Path.cwd()


def _package() -> str:
    """Package of the module that was started with `python -m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.parent:
        return spec.parent
    return Path(sys.argv[0]).resolve().parent.name


@contextlib.contextmanager
def _stoppable(package: str) -> Generator[None, None, None]:
    """Lets signals end the process: what is finished is on disk already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in STOPPING}
    exit_on_signals(f"{package}.claims")
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _parse(claims: Sequence[Claim], argv: Sequence[str] | None, package: str) -> Any:
    """Arguments, with `experiment` and `out` filled in; exits 2 when they are wrong."""
    parser = Parser(
        prog=f"python -m {package}.claims",
        description=f"Measures the claims of the sources behind `{package}`.",
    )
    parser.add_argument("--list", action="store_true", help="print the claims as JSON")
    parser.add_argument("--experiment", metavar="NAME", help="which group to measure")
    parser.add_argument("--only", metavar="CLAIM_ID", help="measure one claim")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--full", action="store_true", help="use all seeds")
    arguments = parser.parse_args(argv)
    experiments = {claim.id: claim.experiment for claim in claims}
    names = list(dict.fromkeys(experiments.values()))
    if arguments.list:
        return arguments
    if arguments.only is not None:
        if arguments.only not in experiments:
            parser.error(unknown("claim", arguments.only, experiments))
        home = experiments[arguments.only]
        arguments.experiment = arguments.experiment or home
        if arguments.experiment != home:
            parser.error(f"claim {arguments.only!r} belongs to experiment {home!r}.")
    if arguments.experiment is None:
        parser.error(f"--experiment is missing: one of {', '.join(names)}.")
    if arguments.experiment not in names:
        parser.error(unknown("experiment", arguments.experiment, names))
    arguments.out = arguments.out or Path("out", package, arguments.experiment)
    if problem := usable_folder(arguments.out) or foreign_results(arguments.out):
        parser.error(problem)
    return arguments


def _check(claims: Sequence[Claim]) -> None:
    seen = set()
    for claim in claims:
        if claim.id in seen or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", claim.id):
            raise ValueError(f"claim id must be a unique plain name: {claim.id!r}.")
        name = claim.experiment
        if name in RESERVED or not re.fullmatch(r"[a-z0-9_]+", name):
            raise ValueError(f"experiment must be a plain free name: {name!r}.")
        seen.add(claim.id)


def main(
    claims: Sequence[Claim],
    argv: Sequence[str] | None = None,
    *,
    package: str | None = None,
) -> int:
    """Lists the claims of a package, or measures those of one experiment.

    Args:
        claims: the package's claims, in the order of the report.
        argv: arguments; None takes those of the process.
        package: name of the package; None takes it from the module that runs.

    Returns:
        0 when every check ran, 1 when one crashed. Ctrl-C, SIGTERM and SIGHUP end the
        process with status 130, 143 and 129.

    Raises:
        ValueError: if two claims share an id, or an id or experiment is no plain name.
        SystemExit: with status 2 for wrong arguments; 130, 143 or 129 when a signal
            stopped a training run that saves its state.
    """
    keep_going()
    _check(claims)
    package = package or _package()
    arguments = _parse(claims, argv, package)
    if arguments.list:
        print(json.dumps(_listing(package, claims), indent=1))
        return 0
    own = [claim for claim in claims if claim.experiment == arguments.experiment]
    with _stoppable(package):
        return _run(own, arguments, package)
