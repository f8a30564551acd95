"""Rows of `claims.json`: which are finished, which crashed, which are out of date."""

import shutil
from pathlib import Path
from typing import Any

from expkit import jsonfile, locks
from expkit.statistics import NOT_DECIDED

CRASHED = "crashed"
"""How the details of a claim begin whose check did not finish."""

Row = dict[str, Any]


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
    for entry in (out / name for name in locks.WRITTEN):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    jsonfile.write(out / "run.json", {"fingerprint": fingerprint})


def discard_stale(out: Path, fingerprint: dict[str, Any]) -> None:
    """Removes finished rows and figures that were made with other code or versions.

    Args:
        out: folder of the experiment.
        fingerprint: what finished rows must have been measured with.
    """
    if is_current(out, fingerprint):
        return
    for name in ("claims.json", "figures.json"):
        (out / name).unlink(missing_ok=True)
    jsonfile.write(out / "run.json", {"fingerprint": fingerprint, "device": None})
