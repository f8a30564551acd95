"""Results that are committed: measured claims as JSON, and the README tables from it.

    ./reproduce.sh lion --full
    python -m expkit.results out      # writes results/lion.json and lion/README.md
    python -m expkit.results          # writes the tables of all READMEs again

Long runs are made in parts: `./reproduce.sh gp_kl --full --only gp_kl/code_spans` has
the rows of that experiment replaced and the others kept, each with the run that it
comes from. A row of a quick run never replaces one of a full run.

A table is never edited by hand: it is what `table` makes of the JSON file, or `summary`
of all of them for the README of the repository, and a test compares the two.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expkit import formatting, jsonfile
from expkit.claim_rows import Row, is_crashed, read_plan, read_published, read_report
from expkit.command_line import Parser
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
    if len(runs) == 1:
        lines = [f"{runs[0]}:", "", *HEADER]
    else:
        lines = [f"{i}. {run}" for i, run in enumerate(runs, start=1)]
        lines += ["", f"{HEADER[0]} run |", f"{HEADER[1]}---|"]
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


def _merge(
    plan: Mapping[str, Any],
    rows: Sequence[Row],
    run: Mapping[str, Any],
    origins: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """The planned claims with their sources, each measured by this or an earlier run.

    `plan`, `rows`, `run` and `origins` are of this run, `before` has the earlier ones;
    only the runs that a row comes from are kept.

    Raises:
        ValueError: if a claim crashed, or was measured by neither.
    """
    new, old = ({row["id"]: row for row in part} for part in (rows, before["claims"]))
    runs, claims, missing = [*before["runs"]], [], []
    for claim in plan["claims"]:
        row, kept = new.get(claim["id"]), old.get(claim["id"])
        if kept and kept["statement"] != claim["statement"]:
            kept = None
        if is_crashed(row) if row else kept is None:
            missing.append(claim["id"])
            continue
        is_better = kept and runs[kept["run"]]["mode"] == "full" != run["mode"]
        if row and not is_better:
            place = f"{plan['package']}/{row.get('experiment')}"
            made = {**run, **origins.get(place, {})}
            runs += [made] * (made not in runs)
            claims.append(row | {"run": runs.index(made)})
        elif kept:
            claims.append(kept | {"source": claim["source"]})
    if missing:
        raise ValueError(f"not measured: {', '.join(missing)}.")
    used = sorted({row["run"] for row in claims})
    claims = [row | {"run": used.index(row["run"])} for row in claims]
    kept_runs = [runs[i] for i in used]
    return {"package": plan["package"], "runs": kept_runs, "claims": claims}


def publish(out: Path, root: Path) -> list[Path]:
    """Copies the claims of a finished run into the repository.

    Args:
        out: folder that `expkit.reproduce` filled.
        root: the checkout.

    Returns:
        Files written: `results/<pkg>.json`, `<pkg>/README.md` of each, and `README.md`.

    Raises:
        ValueError: if the run is unfinished or not of committed code, a claim measured
            neither by it nor before, a file damaged or without a place for results.
    """
    report = read_report(out)
    run = report["environment"]
    if run.get("state") != "finished":
        raise ValueError(f"{out} holds no finished run; ./reproduce.sh --out {out}")
    if run.get("commit") is None or run["commit"].endswith("(modified)"):
        raise ValueError(
            f"the run is of code that is not committed: commit {run.get('commit')}."
        )
    contents = {}
    for folder in sorted(out.glob("*/plan")):
        package = folder.parent.name
        plan = read_plan(folder / "plan.json")
        if plan is None:
            raise ValueError(f"{out} has no plan of {package}, which did not start.")
        file = root / f"results/{package}.json"
        rows = [row for row in report["claims"] if row["package"] == package]
        contents[file] = _merge(
            plan, rows, run, report["origins"], read_published(file)
        )
    texts = _texts(root, contents)
    for path, content in contents.items():
        jsonfile.write(path, content)
    for path, text in texts.items():
        jsonfile.write_text(path, text)
    return [*contents, *texts]


def refresh(root: Path) -> list[Path]:
    """Writes all tables again, from the results in the repository.

    Args:
        root: the checkout.

    Returns:
        The READMEs written.

    Raises:
        ValueError: if a file is damaged, missing, or without a place for results.
    """
    texts = _texts(root, {})
    for path, text in texts.items():
        jsonfile.write_text(path, text)
    return [*texts]


def _texts(root: Path, new: Mapping[Path, Mapping[str, Any]]) -> dict[Path, str]:
    """The READMEs with tables of the results: new ones, and those there already."""
    paths = sorted({*(root / "results").glob("*.json"), *new})
    contents = [new.get(path) or read_published(path) for path in paths]
    overview, texts = root / "README.md", {}
    if not overview.is_file():
        raise ValueError(f"{root} has no README.md; start from the root.")
    for content in contents:
        readme = root / content["package"] / "README.md"
        text = readme.read_text(encoding="utf-8")
        texts[readme] = replace_table(text, content)
    text = overview.read_text(encoding="utf-8")
    return texts | {overview: replace_summary(text, contents)}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of this module.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit status.

    Raises:
        SystemExit: with status 2 and one line for wrong arguments.
    """
    parser = Parser(prog="python -m expkit.results", description=__doc__)
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        help="folder that ./reproduce.sh filled; without it, only tables are written",
    )
    out, root = parser.parse_args(argv).out, Path.cwd()
    try:
        for path in publish(out, root) if out else refresh(root):
            print(path)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
