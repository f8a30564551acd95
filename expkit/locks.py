"""One process a folder, which writes nowhere else and finds what it wrote.

Two that train in the same folder would mix their rows. A folder from somebody else may
hold links, and a run would write to where they lead. In a folder with brackets in its
path Orbax loses checkpoints.
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

PATTERN = frozenset("*?[\\")
"""What has a meaning in a pattern of file names."""

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


def require_usable(folder: Path) -> None:
    """Refuses a folder that a run would write out of, or lose checkpoints in.

    Args:
        folder: of a run; it need not exist.

    Raises:
        OSError: as the two checks below; `strerror` says why.
    """
    require_plain_path(folder)
    require_no_link_out(folder)


def require_no_link_out(folder: Path) -> None:
    """Refuses a folder in which something that a run writes leads out of it.

    Args:
        folder: of a run; it need not exist, and may be a link itself.

    Raises:
        OSError: if there is such a link; `strerror` names it.
    """
    inside = _target(folder)
    for name in WRITTEN:
        for path in (folder / name, *_below(folder / name)):
            if path.is_symlink() and not _target(path).is_relative_to(inside):
                raise OSError(
                    errno.EPERM, f"{path.relative_to(folder)} is a link out of it"
                )


def require_plain_path(folder: Path) -> None:
    """Refuses a folder in which Orbax does not find what it wrote.

    It looks for the parts of a checkpoint with a pattern that begins with the path, and
    TensorStore takes the path for a URL. Where they look elsewhere, the checkpoint is
    finished without its arrays, with no more than a warning.

    Args:
        folder: of a run; it need not exist.

    Raises:
        OSError: if its absolute path has a character of `PATTERN`, or bytes that are
            not text; `strerror` names it.
    """
    found = [
        character
        for character in str(folder.absolute())
        if character in PATTERN or "\ud800" <= character <= "\udfff"
    ]
    if found:
        raise OSError(
            errno.EINVAL,
            f"with {found[0]!r} in the path Orbax could not read its checkpoints",
        )


def _target(path: Path) -> Path:
    """Where links lead; unlike `Path.resolve`, no error where they go in a circle."""
    return Path(os.path.realpath(path))


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))
