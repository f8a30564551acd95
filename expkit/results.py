"""Results that are committed: a run's claims as JSON, and the README tables from it.

    ./reproduce.sh lion --full
    python -m expkit.results out      # writes results/lion.json and lion/README.md

A table is never edited by hand: it is what `table` makes of the JSON file, and a test
compares the two.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expkit import formatting, jsonfile
from expkit.claim_rows import Row, is_crashed
from expkit.command_line import Parser

BEGIN = "<!-- results: written by python -m expkit.results -->"
END = "<!-- end of results -->"
HEADER = """| claim | measured | 95 % interval | verdict | seeds |
|---|---|---|---|---|"""


def table(content: Mapping[str, Any]) -> str:
    """The results of a package as Markdown.

    Args:
        content: `{"environment", "claims"}`, as `publish` writes it.

    Returns:
        A line on where and how it was measured, and a table with a row a claim.
    """
    environment = content["environment"]
    flag = " --full" if environment["mode"] == "full" else ""
    where = (
        f"`./reproduce.sh {content['package']}{flag}` on {environment['cpu']} "
        f"({environment['cores']} cores), {environment['date'][:10]}, "
        f"JAX {environment['versions']['jax']}, commit {environment['commit']}:"
    )
    return "\n".join([where, "", HEADER, *map(_row, content["claims"])])


def _row(claim: Mapping[str, Any]) -> str:
    interval, seeds = claim["interval"], claim["seeds"]
    cells = (
        claim["statement"],
        formatting.number(claim["measured"]),
        formatting.interval(interval) if interval else "",
        claim["verdict"],
        str(len(seeds)) if seeds else "",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no lines {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{table(content)}\n\n{END}{after}"


def _unmeasured(out: Path, rows: Sequence[Row]) -> list[str]:
    """Planned claims that have no row, rows that crashed, and what has no plan."""
    done = {row["id"] for row in rows if not is_crashed(row)}
    planned = dict.fromkeys(row["id"] for row in rows)
    packages = {row["package"] for row in rows}
    packages |= {folder.parent.name for folder in out.glob("*/plan")}
    missing = []
    for name in sorted(packages):
        plan = jsonfile.read(out / name / "plan/plan.json")
        if plan is None:
            missing.append(f"the plan of {name}")
        else:
            planned |= dict.fromkeys(claim["id"] for claim in plan["claims"])
    return missing + [claim for claim in planned if claim not in done]


def publish(out: Path, root: Path) -> list[Path]:
    """Copies the claims of a finished run into the repository.

    Args:
        out: folder that `expkit.reproduce` filled.
        root: the checkout.

    Returns:
        The files written: `results/<pkg>.json` and `<pkg>/README.md` of each package.

    Raises:
        ValueError: if the run is not finished or not of committed code, a claim was not
            measured, or a README has no place for results.
    """
    report = jsonfile.read(out / "claims.json")
    if not report or report["environment"].get("state") != "finished":
        raise ValueError(f"{out} holds no finished run; ./reproduce.sh --out {out}")
    commit = report["environment"].get("commit")
    if commit is None or commit.endswith("(modified)"):
        raise ValueError(f"the run is of code that is not committed: commit {commit}.")
    if missing := _unmeasured(out, report["claims"]):
        raise ValueError(f"not measured in {out}: {', '.join(missing)}.")
    written = []
    for package in dict.fromkeys(row["package"] for row in report["claims"]):
        claims = [row for row in report["claims"] if row["package"] == package]
        content = {
            "package": package,
            "environment": report["environment"],
            "claims": claims,
        }
        readme, results = root / package / "README.md", root / f"results/{package}.json"
        text = replace_table(readme.read_text(encoding="utf-8"), content)
        jsonfile.write(results, content)
        jsonfile.write_text(readme, text)
        written += [results, readme]
    return written


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
    parser.add_argument("out", type=Path, help="folder that ./reproduce.sh filled")
    arguments = parser.parse_args(argv)
    try:
        for path in publish(arguments.out, Path.cwd()):
            print(path)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
