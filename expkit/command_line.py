"""What the `argparse` commands share: errors of one line, the nearest known name."""

import argparse
import difflib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from expkit import locks
from expkit.messages import one_line

CHECKOUT = Path(__file__).resolve().parent.parent
"""Where `expkit` lies, and the packages that it runs."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on stderr and exit status 2."""

    def __init__(self, **options: Any) -> None:
        """Takes the options of `argparse.ArgumentParser`; no abbreviated flags."""
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Exits with status 2.

        Args:
            message: what was wrong, what was received, what to do.

        Raises:
            SystemExit: always.
        """
        self.exit(2, f"{self.prog}: {one_line(message)}\n")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for a name that is not among the known ones.

    Args:
        kind: what the name stands for, for example "package".
        name: the name received.
        known: the names that exist.

    Returns:
        One line that names the nearest.
    """
    options = sorted(known)
    if not options:
        return f"unknown {kind} {name!r}: there is none here."
    nearest = difflib.get_close_matches(name, options, n=1, cutoff=0.0)
    return f"unknown {kind} {name!r}; the nearest of {len(options)} is {nearest[0]!r}."


def usable_folder(path: Path) -> str:
    """Makes a folder, reserves it for this process, and tries to write in it.

    In the folder of the code, and in one of another process, nothing is written.

    Args:
        path: the folder.

    Returns:
        "" when it worked, otherwise one line that says why it did not.
    """
    try:
        locks.require_plain_path(path)
        if os.path.realpath(path) == str(CHECKOUT):
            return f"--out={path} is the folder of the code; give another, such as out."
        path.mkdir(parents=True, exist_ok=True)
        if not locks.acquire(path):
            return f"--out={path} is in use by another process; wait, or give another."
        with tempfile.TemporaryFile(dir=path):
            pass  # an earlier `.lock` may be open to us where the folder is not
    except OSError as error:
        return f"cannot write to --out={path}: {error.strerror}."
    return ""
