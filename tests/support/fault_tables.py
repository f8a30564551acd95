"""The tables of `docs/reliability.md`, from what `benchmarks/faults.py` measured."""

import re
from collections.abc import Callable, Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]
WINDOWS = {
    "clock": "any time, by the clock",
    "compilation": "while the step is compiled",
    "checkpoint": "at a file operation on checkpoints",
    "metrics": "within a row of metrics",
}


def kills(rows: Rows) -> str:
    """Kills by window: how many, what they left, and how many ended exact."""
    lines = [
        "| instant | kills | half a row left | half a checkpoint left | exact rerun |",
        "|---|---|---|---|---|",
    ]
    for window in [*WINDOWS, "all"]:
        chosen = [row for row in rows if window in ("all", row["window"])]
        counts = [
            sum(row[name] for row in chosen)
            for name in ("half_row", "half_checkpoint", "exact")
        ]
        name = WINDOWS.get(window, "all")
        cells = [name, str(len(chosen)), *map(str, counts[:2])]
        lines.append(f"| {' | '.join(cells)} | {counts[2]} of {len(chosen)} |")
    return "\n".join(lines)


def faults(rows: Rows) -> str:
    """Faults: how the command exits, what it says, and what the next run does."""
    lines = [
        "| fault | exit status | last line on stderr | the next run |",
        "|---|---|---|---|",
    ]
    for row in rows:
        if "status" not in row:
            lines.append(f"| {row['fault']} | not measured | | |")
            continue
        if row["status"]:
            said = f"`{_neutral(row['line'])}`"
            after = "exact" if row["next_exact"] else f"refuses: {row['next_status']}"
        else:
            said, after = "", "exact, in the same run" if row["exact"] else "differs"
        lines.append(f"| {row['fault']} | {row['status']} | {said} | {after} |")
    return "\n".join(lines)


def devices(rows: Rows) -> str:
    """Runs that went on with another number of devices."""
    lines = [
        "| devices before | devices after | largest relative difference of a loss |",
        "|---|---|---|",
    ]
    for row in rows:
        error = f"{row['largest_relative_error']:.1e}"
        lines.append(f"| {row['before']} | {row['after']} | {error} |")
    return "\n".join(lines)


def processes(rows: Rows) -> str:
    """Runs of two processes of which one got a signal."""
    lines = [
        "| signal | the other ends after | exit status | line on stderr "
        "| started again as | largest relative difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        status, line = row["status"], row["line"]
        if status < 0:  # ended by JAX, which says when and where, and more afterwards
            status, line = 128 - status, line.partition("] ")[2].split(". ")[0]
        after = row["processes_after"]
        cells = [
            f"{row['signal']} to process {row['process']}",
            f"{row['seconds']:.1f} s",
            str(status),
            f"`{_neutral(line)}`",
            f"{after} process{'es' * (after > 1)}",
            "none, exact" if row["exact"] else f"{row['largest_relative_error']:.1e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Rows], str]] = {
    "kills": kills,
    "faults": faults,
    "devices": devices,
    "processes": processes,
}


def section(page: str, name: str) -> str:
    """The text of a page between `<!-- name -->` and `<!-- /name -->`."""
    found = re.search(f"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no section {name!r}.")
    return found[1]


def with_tables(page: str, content: dict[str, Rows]) -> str:
    """The page with the tables of what was measured."""
    for name, table in TABLES.items():
        old = section(page, name)
        page = page.replace(
            f"<!-- {name} -->\n{old}\n", f"<!-- {name} -->\n{table(content[name])}\n"
        )
    return page


def _neutral(line: str) -> str:
    """A line without the folders of the machine that it was printed on."""
    return re.sub(r"(?<![\w.])(/[\w.-]+)+/(?=[\w.-])", ".../", line)
