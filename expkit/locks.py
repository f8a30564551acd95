"""One process a folder, which writes nowhere else.

Two that train in the same folder would mix their rows. A folder from somebody else may
hold links, and a run would write to where they lead.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

WRITTEN = (
    *(".lock", "config.json", "metrics.jsonl", "result.json"),
    *("checkpoints", "encoder"),
)
"""What a run writes in its folder."""

_held: dict[Path, TextIO] = {}


def acquire(folder: Path) -> bool:
    """Reserves a folder for this process until it ends, however it ends.

    Args:
        folder: an existing folder; a file `.lock` is left in it.

    Returns:
        False if another process holds it; True also when this one already does.
    """
    path = folder.resolve() / ".lock"
    held = _held.get(path)
    if held is not None and path.exists():
        return True
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    except OSError:  # a file system without locks
        pass
    _held[path] = file
    return True


def require_no_link_out(folder: Path) -> None:
    """Refuses a folder in which something that a run writes leads out of it.

    Args:
        folder: of a run; it need not exist, and may be a link itself.

    Raises:
        OSError: if there is such a link; `strerror` names it.
    """
    inside = folder.resolve()
    for name in WRITTEN:
        for path in (folder / name, *_below(folder / name)):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise OSError(
                    errno.EPERM, f"{path.relative_to(folder)} is a link out of it"
                )


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))
