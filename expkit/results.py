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


def publish(out: Path, root: Path) -> list[Path]:
    """Copies the claims of a finished run into the repository.

    Args:
        out: folder that `expkit.reproduce` filled.
        root: the checkout.

    Returns:
        The files written: `results/<pkg>.json` and `<pkg>/README.md` of each package.

    Raises:
        ValueError: if the run is not finished, or a README has no place for results.
    """
    report = jsonfile.read(out / "claims.json")
    if not report or report["environment"].get("state") != "finished":
        raise ValueError(f"{out} holds no finished run; ./reproduce.sh --out {out}")
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
