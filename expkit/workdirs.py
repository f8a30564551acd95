"""The folder of a run: locked, and of this config and these data or refused.

`config.json` is the first thing that a run writes and `data.json`, the digests of what
it learns from, the second: what lies in a folder without a config is no run's.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from expkit import jsonfile, locks
from expkit.config import ConfigError

PLACEMENT_FIELDS = ("mesh",)
"""Fields that say where the work is done and not what it is."""

AFTER_CONFIG = ("data.json", "metrics.jsonl", "result.json", "encoder")
"""What a run writes only where its `config.json` is."""


def prepare(config: ml_collections.ConfigDict, workdir: str | Path) -> Path:
    """Makes the folder of a run and writes `config.json`, or checks the one there.

    Args:
        config: the run's config.
        workdir: the folder; a rerun in it resumes.

    Returns:
        The folder, existing and writable.

    Raises:
        ConfigError: if the folder cannot be written, is in use by another process,
            holds what no run of ours wrote, or belongs to a run with another config
            (fields in `PLACEMENT_FIELDS` may differ).
    """
    place = workdir = Path(workdir)
    try:
        locks.require_usable(workdir)
        _refuse_foreign(workdir)
        for place in (workdir, workdir / "checkpoints"):
            place.mkdir(parents=True, exist_ok=True)
            probe = place / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        place = workdir / ".lock"
        is_ours = locks.acquire(workdir)
    except OSError as error:
        raise ConfigError(
            f"workdir {str(workdir)!r} cannot be written ({place}: "
            f"{error.strerror}); give --workdir a folder that can."
        ) from error
    if not is_ours:
        reason = "is in use by another process; wait for it, or use another --workdir"
        raise ConfigError(f"workdir {str(workdir)!r} {reason}.")
    values = jsonfile.plain(config.to_dict())
    path, kept = workdir / "config.json", (workdir / "checkpoints").iterdir()
    if path.exists() or any(folder.name.isdigit() for folder in kept):
        _refuse_other_config(path, values)
    jsonfile.write(path, values)
    return workdir


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A digest of arrays: of their names, dtypes, shapes and bytes.

    Args:
        arrays: of any dtype and layout; their order does not count.

    Returns:
        The SHA-256 in hexadecimal digits.
    """
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        found.update(f"{name!r} {array.dtype.str} {array.shape}\n".encode())
        if array.dtype.kind in "OT":  # whose bytes are addresses
            found.update(repr(array.tolist()).encode(errors="backslashreplace"))
        elif array.nbytes:
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def require_same_data(workdir: Path, digests: Mapping[str, str]) -> None:
    """Refuses a rerun with other data; keeps the digests of a first run.

    Args:
        workdir: from `prepare`.
        digests: of what the run reads, by its name. Names that `data.json` has no
            digest of, as in the folder of an older version, are added to it.

    Raises:
        ConfigError: if one is not that of `data.json`, or this is no such file.
    """
    path = workdir / "data.json"
    stored: Any = jsonfile.read(path) if path.exists() else {}
    if not isinstance(stored, dict):
        raise ConfigError(
            f"{path} is damaged, so the data cannot be compared: restore it, or use "
            "another --workdir."
        )
    changed = [
        name for name in digests if stored.get(name, digests[name]) != digests[name]
    ]
    if changed:
        names = ", ".join("training" if name == "train" else name for name in changed)
        raise ConfigError(
            f"the {names} data differ from those of the run in {workdir}: restore "
            "them, or use another --workdir."
        )
    if digests.keys() - stored.keys():
        jsonfile.write(path, {**stored, **digests})


def _refuse_foreign(workdir: Path) -> None:
    # In this order: a run that begins meanwhile writes its config first.
    found = [name for name in AFTER_CONFIG if os.path.lexists(workdir / name)]
    if found and not (workdir / "config.json").exists():
        raise ConfigError(
            f"workdir {str(workdir)!r} holds {found[0]} but no config.json, so it is "
            f"not the folder of a run; use another --workdir, or move {found[0]} away."
        )


def _refuse_other_config(path: Path, values: dict[str, Any]) -> None:
    stored = jsonfile.read(path)
    if not isinstance(stored, dict):
        raise ConfigError(f"{path} is no config; restore it, or use another --workdir.")
    for name in sorted((stored.keys() | values.keys()) - set(PLACEMENT_FIELDS)):
        if stored.get(name) != values.get(name):
            raise ConfigError(
                f"{path.parent} holds a run with {name}={stored.get(name)!r}, not "
                f"{values.get(name)!r}: use another --workdir, or delete it to start "
                "over."
            )
