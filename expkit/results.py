"""Results that are committed: measured claims as JSON, and the README tables from it.

    ./reproduce.sh lion --full
    python -m expkit.results out      # writes results/lion.json and lion/README.md
    python -m expkit.results          # writes the tables of all READMEs again

Long runs are made in parts: `./reproduce.sh gp_kl --full --only gp_kl/code_spans` has
the rows of that experiment replaced and the others kept, each with the run that it
comes from. A row of a quick run never replaces one of a full run.

A verdict may no longer stand, such as one with the best settings at an end of a grid
that was moved since: `--reopen needs-rotary "the reason."` keeps the figures of the
row, and makes it not decided for the reason.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expkit import jsonfile
from expkit.claim_rows import Row, is_crashed, read_plan, read_published, read_report
from expkit.command_line import Parser, unknown
from expkit.result_tables import replace_summary, replace_table
from expkit.statistics import DOES_NOT_HOLD, HOLDS, NOT_DECIDED


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
    return _write(root, contents)


def reopen(root: Path, claim: str, reason: str) -> list[Path]:
    """Makes a verdict in the repository not decided; its figures stay.

    Args:
        root: the checkout.
        claim: id of one that holds or does not hold; `package/id` where several have
            that id.
        reason: why that no longer stands, the end of a sentence that starts with the
            verdict and "but".

    Returns:
        The files written.

    Raises:
        ValueError: if there is no such claim or more than one, its verdict is none of
            the two, the reason is empty or does not end in a full stop, or a file is
            damaged, missing, or without a place for results.
    """
    if not reason[:-1].strip() or not reason.endswith("."):
        raise ValueError(f"the reason must end in a full stop, got {reason!r}.")
    contents = {
        path: read_published(path) for path in (root / "results").glob("*.json")
    }
    found = {
        f"{content['package']}/{row['id']}": (path, row)
        for path, content in contents.items()
        for row in content["claims"]
    }
    names = [name for name in sorted(found) if claim in (name, name.split("/")[1])]
    if not names:
        raise ValueError(unknown("claim", claim, found))
    if len(names) > 1:
        raise ValueError(f"several claims are called {claim!r}: {', '.join(names)}.")
    path, row = found[names[0]]
    if row["verdict"] not in (HOLDS, DOES_NOT_HOLD):
        raise ValueError(
            f"only what holds or does not hold is reopened; {names[0]!r} is "
            f"{row['verdict']!r}."
        )
    details = f"{row.get('details', '')} {row['verdict'].capitalize()}, but {reason}"
    row |= {"verdict": NOT_DECIDED, "details": details.strip()}
    return _write(root, {path: contents[path]})


def refresh(root: Path) -> list[Path]:
    """Writes all tables again, from the results in the repository.

    Args:
        root: the checkout.

    Returns:
        The READMEs written.

    Raises:
        ValueError: if a file is damaged, missing, or without a place for results.
    """
    return _write(root, {})


def _write(root: Path, contents: Mapping[Path, Mapping[str, Any]]) -> list[Path]:
    """Writes new results and all tables; nothing where a table has no place."""
    texts = _texts(root, contents)
    for path, content in contents.items():
        jsonfile.write(path, content)
    for path, text in texts.items():
        jsonfile.write_text(path, text)
    return [*contents, *texts]


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
    parser.add_argument(
        "--reopen",
        nargs=2,
        metavar=("CLAIM", "REASON"),
        help="make a verdict of an earlier run not decided, and say why",
    )
    arguments, root = parser.parse_args(argv), Path.cwd()
    if arguments.reopen and arguments.out:
        parser.error("--reopen is about earlier runs: give no folder with it.")
    try:
        if arguments.reopen:
            written = reopen(root, *arguments.reopen)
        else:
            written = publish(arguments.out, root) if arguments.out else refresh(root)
        for path in written:
            print(path)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
