"""`metrics.jsonl`: one JSON object a line, that survives being killed and resumed."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, TextIO

from expkit import jsonfile


class MetricsWriter:
    """Appends rows to a file.

    Opening cuts off what a resumed run will write again: rows after `resume_step` and
    a last line that was only half written.
    """

    def __init__(self, path: str | Path, *, resume_step: int = 0):
        path = Path(path)
        kept = [row for row in read(path) if row["step"] <= resume_step]
        text = "".join(_line(row) for row in kept)
        if not path.exists() or path.read_text(errors="replace") != text:
            jsonfile.write_text(path, text)
        self._digest = hashlib.sha256(text.encode())
        self._file: TextIO = path.open("a")

    def write(self, step: int, **values: float) -> None:
        """Appends one row and hands it to the operating system.

        Args:
            step: number of updates done.
            **values: figures; wall-clock ones have `seconds` in their name, since they
                are the only ones that differ between identical runs.

        Raises:
            FileNotFoundError: if somebody has removed the file, whose rows would be
                lost without a word.
            OSError: if it cannot be written.
        """
        if not os.fstat(self._file.fileno()).st_nlink:
            raise FileNotFoundError(f"{self._file.name} was removed during the run")
        line = _line({"step": step, **values})
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:  # which does not say where
            raise OSError(f"cannot write {self._file.name}: {error}") from error
        self._digest.update(line.encode())

    def sync(self) -> str:
        """Puts the rows on the disk, before a checkpoint that relies on them.

        Returns:
            What `digest` gives for all the rows.
        """
        if self._file.name != os.devnull:  # which cannot be synced
            os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # What could not be written before cannot be written at the end either.
        with contextlib.suppress(*([OSError] if kind else [])):
            self.close()


def read(path: str | Path) -> list[dict[str, Any]]:
    """Reads the complete rows of a metrics file.

    Args:
        path: the file; it need not exist.

    Returns:
        The rows in order, up to the first line that is not a complete row (the half
        line that a killed process leaves).
    """
    path = Path(path)
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # the second: nested too deep
            break
        is_row = isinstance(row, dict) and isinstance(row.get("step"), int)
        if not line.endswith("\n") or not is_row:
            break
        rows.append(row)
    return rows


def digest(path: str | Path, step: int) -> str:
    """A digest of the rows of a metrics file.

    Args:
        path: the file; it need not exist.
        step: rows after it do not count.

    Returns:
        The SHA-256 of the rows in hexadecimal digits.
    """
    lines = (_line(row) for row in read(path) if row["step"] <= step)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(jsonfile.plain(row), allow_nan=False) + "\n"
