"""Rows of `claims.json`: which are finished, which crashed, which are out of date.

The files may be damaged, or be others of these names: what is no row is measured again,
and a plan or a report that is none counts as missing.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from expkit import jsonfile, locks
from expkit.statistics import NOT_DECIDED, VERDICTS

CRASHED = "crashed"
"""How the details of a claim begin whose check did not finish."""

ORIGIN = {"date": str, "cores": int, "command": str}
"""What differs between the experiments of a folder that several commands filled."""

Row = dict[str, Any]

_RESULTS = ("claims.json", "figures.json")
_CLAIM = {"id": str, "statement": str, "source": str}
_ROW = _CLAIM | {"package": str, "verdict": str}
_PLAN = {"package": str, "experiments": list, "claims": list}
_REPORT = {"environment": dict, "claims": list}
_ENVIRONMENT = {
    **dict.fromkeys(("mode", "date", "cpu", "command", "python", "platform"), str),
    **{"cores": int, "versions": dict, "commit": str | None, "device": dict | None},
}
_DEVICE = {"count": int, "kind": str, "platform": str}


def read_rows(path: Path) -> list[Row]:
    """Rows of the `claims.json` of an experiment.

    Args:
        path: the file; it need not exist.

    Returns:
        The rows in it that are whole.
    """
    return [row for row in jsonfile.read_objects(path, _ROW) if _is_row(row)]


def read_plan(path: Path) -> dict[str, Any] | None:
    """What a package claims, as `--list` prints it.

    Args:
        path: the file; it need not exist.

    Returns:
        An object with `package`, `experiments` and `claims`; None where there is none.
    """
    plan, claim = jsonfile.read(path), _CLAIM | {"experiment": str}
    is_plan = (
        jsonfile.has(plan, _PLAN)
        and all(isinstance(name, str) for name in plan["experiments"])
        and all(jsonfile.has(row, claim) for row in plan["claims"])
    )
    return plan if is_plan else None


def read_report(out: Path) -> dict[str, Any]:
    """The rows of all packages and where they come from.

    Args:
        out: folder that `expkit.reproduce` filled.

    Returns:
        `{"environment", "origins", "claims"}`; origins has what of the environment is
        another for an experiment, `package/experiment`.

    Raises:
        ValueError: if its `claims.json` is missing or no such object.
    """
    path = out / "claims.json"
    report = jsonfile.read(path)
    is_report = (
        jsonfile.has(report, _REPORT)
        and is_environment(report["environment"])
        and all(jsonfile.has(row, _ROW) and _is_row(row) for row in report["claims"])
    )
    if not is_report:
        what = "is damaged" if path.exists() else "is missing"
        raise ValueError(f"{path} {what}: run ./reproduce.sh first.")
    origins = report.get("origins")
    kept = origins if isinstance(origins, dict) else {}
    known = {name: kept[name] for name in kept if jsonfile.has(kept[name], ORIGIN)}
    return report | {"origins": known}


def read_published(path: Path) -> dict[str, Any]:
    """Results of a package that are in the repository.

    Args:
        path: `results/<pkg>.json`.

    Returns:
        `{"package", "runs", "claims"}`, without runs and claims where there is no file.

    Raises:
        ValueError: if it is damaged: what it held would be lost with the next results.
    """
    if not path.exists():
        return {"package": path.stem, "runs": [], "claims": []}
    content, kinds = jsonfile.read(path), {"package": str, "runs": list, "claims": list}
    if not jsonfile.has(content, kinds):
        raise ValueError(f"{path} is damaged; restore it, as with git checkout.")
    return content


def is_environment(value: Any) -> bool:
    """Whether a value says where a run was made, as `environment.describe` does.

    Args:
        value: read from a file.

    Returns:
        True or False.
    """
    return jsonfile.has(value, _ENVIRONMENT) and (
        value["device"] is None or jsonfile.has(value["device"], _DEVICE)
    )


def _is_row(row: Row) -> bool:
    """Whether the verdict and what may be missing is of the kind that it must be."""
    return (
        row["verdict"] in VERDICTS
        and isinstance(row.get("experiment", ""), str)
        and isinstance(row.get("details", ""), str)
        and isinstance(row.get("interval"), list | None)
        and isinstance(row.get("seeds"), list | None)
    )


def crashed_row(claim: dict[str, str], package: str, command: str, error: str) -> Row:
    """Row of a claim whose check did not finish.

    Args:
        claim: "id", "statement", "source" and "experiment" of the claim.
        package: name of the package.
        command: what repeats it.
        error: one line.

    Returns:
        A row with the verdict `NOT_DECIDED` that a rerun measures again.
    """
    row = {key: claim[key] for key in ("id", "statement", "source", "experiment")}
    found = {"measured": None, "interval": None, "verdict": NOT_DECIDED, "seeds": None}
    details = f"{CRASHED}: {error}"
    return row | found | {"package": package, "command": command, "details": details}


def is_crashed(row: Row) -> bool:
    """Whether a row stands for a check that did not finish.

    Args:
        row: a row of `claims.json`.

    Returns:
        True or False.
    """
    return str(row.get("details", "")).startswith(CRASHED)


def is_current(out: Path, fingerprint: dict[str, Any]) -> bool:
    """Whether what a step left was made with this code, these versions, this mode.

    Args:
        out: folder of the step.
        fingerprint: as `environment.fingerprint` gives it.

    Returns:
        True or False; False where the step has left no fingerprint.
    """
    return jsonfile.read(out / "run.json", {}).get("fingerprint") == fingerprint


def discard_stale_training(out: Path, fingerprint: dict[str, Any]) -> None:
    """Removes a training run that was made with other code or versions.

    What no run writes stays: the folder may be one that somebody keeps data in.

    Args:
        out: folder of the training run.
        fingerprint: what a run that is resumed must have been made with.
    """
    if is_current(out, fingerprint):
        return
    # The config goes late: what lies beside none counts as not ours.
    for entry in (out / name for name in reversed(locks.WRITTEN)):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    jsonfile.write(out / "run.json", {"fingerprint": fingerprint})


def foreign_results(out: Path) -> str:
    """Says what in a folder no experiment wrote, and would be lost.

    `run.json` is the first thing that an experiment writes: what lies beside none is of
    somebody else, such as the `claims.json` of a whole reproduction.

    Args:
        out: folder of the experiment; it need not exist.

    Returns:
        One line, "" where there is no such thing.
    """
    for name in ("run.json", *_RESULTS):
        if os.path.lexists(out / name) and not (out / name).is_file():
            return f"{out / name} is not a regular file; move it away."
    found = [name for name in _RESULTS if (out / name).exists()]
    if not found or (out / "run.json").exists():
        return ""
    return (
        f"{out} holds {found[0]} but no run.json, so it is not the folder of an "
        f"experiment; give another --out, or move {found[0]} away."
    )


def discard_stale(out: Path, fingerprint: dict[str, Any]) -> None:
    """Removes finished rows and figures that were made with other code or versions.

    Args:
        out: folder of the experiment.
        fingerprint: what finished rows must have been measured with.

    Raises:
        FileExistsError: if there are such files of somebody else.
    """
    if problem := foreign_results(out):
        raise FileExistsError(problem.rstrip("."))
    if is_current(out, fingerprint):
        return
    for name in _RESULTS:
        (out / name).unlink(missing_ok=True)
    jsonfile.write(out / "run.json", {"fingerprint": fingerprint, "device": None})
