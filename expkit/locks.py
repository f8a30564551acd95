"""One process a folder: two that train in the same one would mix their rows."""

import fcntl
from pathlib import Path
from typing import TextIO

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
