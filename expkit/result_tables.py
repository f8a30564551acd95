"""Committed results as Markdown: the table of a package, and the count of verdicts.

A table is never edited by hand: it is what `table` makes of the JSON file of a package,
or `summary` of all of them for the README of the repository, and a test compares them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from expkit import formatting
from expkit.statistics import NOT_DECIDED, VERDICTS

BEGIN = "<!-- results: written by python -m expkit.results -->"
BEGIN_SUMMARY = "<!-- verdicts: written by python -m expkit.results -->"
END = "<!-- end of results -->"
HEADER = (
    "| claim | measured | 95 % interval | verdict | seeds |",
    "|---|---|---|---|---|",
)


def table(content: Mapping[str, Any]) -> str:
    """The results of a package as Markdown.

    Args:
        content: `{"package", "runs", "claims"}`, as `publish` writes it.

    Returns:
        A line on each run, and a table with a row a claim; with several runs, the last
        column has the number of the row's.
    """
    runs = [_told(content, number) for number in range(len(content["runs"]))]
    file = f"results/{content['package']}.json"
    told = f"What a figure is of, and its unit, is in `details` of [{file}](../{file})."
    if len(runs) == 1:
        lines = [f"{runs[0]}.", "", told, "", *HEADER]
    else:
        lines = [f"{i}. {run}" for i, run in enumerate(runs, start=1)]
        lines += ["", told, "", f"{HEADER[0]} run |", f"{HEADER[1]}---|"]
    return "\n".join([*lines, *(_row(c, len(runs) > 1) for c in content["claims"])])


def _told(content: Mapping[str, Any], number: int) -> str:
    """What repeats a run, and where it was made; of one in parts, its experiments."""
    package, run = content["package"], content["runs"][number]
    command = f"./reproduce.sh {package}{' --full' if run['mode'] == 'full' else ''}"
    commands = f"`{command}`"
    if "--only" in run["command"]:
        rows = (row for row in content["claims"] if row["run"] == number)
        parts = dict.fromkeys(f"{package}/{row['experiment']}" for row in rows)
        commands = " and ".join(f"`{command} --only {part}`" for part in parts)
    cores = formatting.cores(run["cores"])
    return (
        f"{commands} on {run['cpu']} ({cores}), {run['date'][:10]}, "
        f"JAX {run['versions']['jax']}, commit {run['commit']}"
    )


def _row(claim: Mapping[str, Any], has_run: bool) -> str:
    interval, seeds = claim["interval"], claim["seeds"]
    cells = (
        claim["statement"],
        formatting.number(claim["measured"]),
        formatting.interval(interval) if interval else "",
        claim["verdict"],
        str(len(seeds)) if seeds else "",
        *[str(claim["run"] + 1)] * has_run,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def summary(contents: Sequence[Mapping[str, Any]]) -> str:
    """How often each verdict occurs, as Markdown.

    Args:
        contents: of the packages, each as for `table`.

    Returns:
        A table with a row a package and one for all; how many wait for a full run.
    """
    counts = {
        content["package"]: Counter(row["verdict"] for row in content["claims"])
        for content in contents
    }
    rows = {f"[`{name}`]({name}/README.md#results)": counts[name] for name in counts}
    rows["all"] = sum(counts.values(), Counter())
    lines = [
        f"| | claims | {' | '.join(VERDICTS)} |",
        "|---" * (len(VERDICTS) + 2) + "|",
    ]
    for label, count in rows.items():
        numbers = [count.total(), *(count[verdict] for verdict in VERDICTS)]
        lines.append(f"| {label} | {' | '.join(map(str, numbers))} |")
    missing = sum(
        row["verdict"] == NOT_DECIDED and content["runs"][row["run"]]["mode"] == "quick"
        for content in contents
        for row in content["claims"]
    )
    if missing:
        lines += ["", f"{missing} of those not decided wait for a run with `--full`."]
    return "\n".join(lines)


def replace_table(readme: str, content: Mapping[str, Any]) -> str:
    """A README with its results brought up to date.

    Args:
        readme: text with the lines `BEGIN` and `END`.
        content: as for `table`.

    Returns:
        The same text with `table(content)` between the two lines.

    Raises:
        ValueError: if the lines are missing.
    """
    return _replace(readme, BEGIN, table(content))


def replace_summary(readme: str, contents: Sequence[Mapping[str, Any]]) -> str:
    """The README of the repository with its verdicts brought up to date.

    Args:
        readme: text with the lines `BEGIN_SUMMARY` and `END`.
        contents: as for `summary`.

    Returns:
        The same text with `summary(contents)` between the two lines.

    Raises:
        ValueError: if the lines are missing.
    """
    return _replace(readme, BEGIN_SUMMARY, summary(contents))


def _replace(readme: str, begin_line: str, between: str) -> str:
    before, begin, rest = readme.partition(begin_line)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no lines {begin_line!r} and {END!r}.")
    return f"{before}{begin}\n\n{between}\n\n{end}{after}"
