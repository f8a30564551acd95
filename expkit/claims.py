"""Checkable claims: what a source says, how it is measured, and the verdict.

A package's `claims.py` lists its claims and ends with `main(CLAIMS)`:

    def check_memory(context):
        ratio = adamw_bytes / lion_bytes
        return exact(ratio == 2.0, ratio, "two moments against one")

    CLAIMS = [
        Claim(
            "lion.memory",
            "Lion keeps half the optimiser state of AdamW.",
            "Chen et al. 2023, section 3.2. https://arxiv.org/abs/2302.06675",
            check_memory,
        )
    ]

    if __name__ == "__main__":
        main(CLAIMS)

`python -m lion.claims --experiment=identities` measures them. What changed between two
runs: `python -m expkit.claims diff old.json new.json`.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from expkit import jsonfile
from expkit.claim_rows import CRASHED, is_crashed
from expkit.command_line import Parser
from expkit.context import Context
from expkit.statistics import (
    DOES_NOT_HOLD,
    HOLDS,
    NOT_DECIDED,
    NOT_TESTABLE,
    VERDICTS,
    Interval,
    covered,
    crossed_difference,
    decide,
    mean_interval,
    paired_difference,
)

__all__ = [
    "DOES_NOT_HOLD",
    "HOLDS",
    "NOT_DECIDED",
    "NOT_TESTABLE",
    "VERDICTS",
    "Claim",
    "Context",
    "Finding",
    "covered",
    "crossed_difference",
    "decide",
    "exact",
    "from_experiments",
    "main",
    "mean_interval",
    "not_testable",
    "paired_difference",
]


Verdicts = Mapping[tuple[str, str], str]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        measured: a number or a short text; None or nan where nothing could be measured.
        verdict: one of `VERDICTS`.
        interval: `(low, high)` of `measured`, or None.
        seeds: the seeds behind the number, or None for an identity.
        details: one or two sentences: setting, negative control, what would decide it.
        is_ratio: whether `measured` is a ratio, with an interval of its logarithm.
    """

    measured: float | str | None
    verdict: str
    interval: Interval | None = None
    seeds: Iterable[int] | None = None
    details: str = ""
    is_ratio: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a verdict outside `VERDICTS`."""
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"verdict must be one of {', '.join(VERDICTS)}, got {self.verdict!r}."
            )


@dataclasses.dataclass(frozen=True)
class Claim:
    """One checkable statement of a source.

    Attributes:
        id: unique in the package: letters, digits and `._-`.
        statement: the claim, in one sentence.
        source: authors, year, place in the text, and an address.
        check: measures it: `check(context) -> Finding`.
        experiment: the group of claims that one process measures.
        alone: whether it measures time: nothing else may run beside its experiment.
    """

    id: str
    statement: str
    source: str
    check: Callable[[Context], Finding]
    experiment: str = "identities"
    alone: bool = False


Row = tuple[str, str, str, Callable[[Context], Finding]]
"""Id, statement, source and check of a claim."""


def from_experiments(
    experiments: Mapping[str, Sequence[Row]], *, alone: Collection[str] = ()
) -> list[Claim]:
    """The claims of a package that lists them by experiment.

    Args:
        experiments: by name, `(id, statement, source, check)` of each of their claims.
        alone: names of the experiments that measure time.

    Returns:
        The claims in the same order.
    """
    return [
        Claim(*row, experiment=name, alone=name in alone)
        for name, rows in experiments.items()
        for row in rows
    ]


def exact(is_true: Any, measured: float | str | None, details: str = "") -> Finding:
    """Finding of an identity: it holds or it does not.

    Args:
        is_true: outcome of the comparison (a bool, or a scalar array of one).
        measured: the number or short text to show.
        details: setting and negative control.

    Returns:
        A `Finding` without interval and seeds.
    """
    verdict = HOLDS if bool(is_true) else DOES_NOT_HOLD
    return Finding(measured, verdict, details=details)


def not_testable(needs: str) -> Callable[[Context], Finding]:
    """Check of a published claim that cannot be measured offline.

    Args:
        needs: what a test would take, for example "ImageNet and 256 accelerator days".

    Returns:
        A check with the verdict `NOT_TESTABLE`.

    Raises:
        ValueError: if `needs` is empty.
    """
    if not needs.strip():
        raise ValueError(f"needs must say what a test would take, got {needs!r}.")
    return lambda context: Finding(None, NOT_TESTABLE, details=f"Needs {needs}.")


def main(
    claims: Sequence[Claim],
    argv: Sequence[str] | None = None,
    *,
    package: str | None = None,
) -> NoReturn:
    """Command line of a package's `claims.py`; see `expkit.claim_runner.main`.

    Args:
        claims: the package's claims, in the order of the report.
        argv: arguments; None takes those of the process.
        package: name of the package; None takes it from the module that runs.

    Raises:
        SystemExit: always, with the exit status.
    """
    from expkit import claim_runner

    raise SystemExit(claim_runner.main(claims, argv, package=package))


def verdicts(path: Path) -> dict[tuple[str, str], str]:
    """Verdicts of a `claims.json`, of a whole report or of one experiment.

    A check that crashed counts as `crashed`, whatever its row has for a verdict.

    Args:
        path: the file.

    Returns:
        `{(package, id): verdict}` in the order of the file.

    Raises:
        ValueError: if the file is missing or holds no list of claims.
    """
    content: Any = jsonfile.read(path)
    rows: Any = content.get("claims") if isinstance(content, dict) else content
    try:
        return {
            (row["package"], row["id"]): CRASHED if is_crashed(row) else row["verdict"]
            for row in rows
        }
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a readable claims.json.") from error


def differences(old: Verdicts, new: Verdicts) -> Iterator[str]:
    """One line for each claim that changed its verdict, appeared or vanished.

    Args:
        old: verdicts before.
        new: verdicts after.

    Yields:
        Lines such as `lion lion.memory: holds -> not decided`.
    """
    for key in {**old, **new}:
        name = " ".join(key)
        if key not in new:
            yield f"{name}: vanished (was {old[key]})"
        elif key not in old:
            yield f"{name}: appeared ({new[key]})"
        elif old[key] != new[key]:
            yield f"{name}: {old[key]} -> {new[key]}"


def diff(argv: Sequence[str] | None = None) -> int:
    """Command line of this module: `diff OLD NEW`.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0 when every verdict is the same, 1 when any changed, appeared or vanished.

    Raises:
        SystemExit: with status 2 and one line for wrong arguments.
    """
    parser = Parser(
        prog="python -m expkit.claims", description="What changed between two runs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("diff", help="which verdicts changed")
    command.add_argument("old", type=Path, help="claims.json before")
    command.add_argument("new", type=Path, help="claims.json after")
    arguments = parser.parse_args(argv)
    try:
        old, new = verdicts(arguments.old), verdicts(arguments.new)
    except ValueError as error:
        parser.error(str(error))
    lines = list(differences(old, new))
    for line in lines:
        print(line)
    if not lines:
        print(f"no verdict changed ({len(new)} claims)")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(diff())
