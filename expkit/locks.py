"""One process a folder, which writes nowhere else and finds what it wrote.

Two that train in the same folder would mix their rows. A folder from somebody else may
hold links, and a run would write to where they lead, or a named pipe, where it would
wait for ever. In a folder with brackets in its path Orbax loses checkpoints.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

FOLDERS = ("checkpoints", "encoder")
"""The folders in `WRITTEN`."""

WRITTEN = (
    *(".lock", "config.json", "data.json", "metrics.jsonl", "result.json"),
    *FOLDERS,
)
"""What a run writes in its folder."""

PATTERN = frozenset("*?[\\")
"""What has a meaning in a pattern of file names."""

_KINDS = {
    "regular file": (stat.S_ISREG,),
    "folder": (stat.S_ISDIR,),
    "file or folder": (stat.S_ISREG, stat.S_ISDIR),
}
_held: dict[Path, TextIO] = {}


def acquire(folder: Path) -> bool:
    """Reserves a folder for this process until it ends, however it ends.

    Args:
        folder: an existing folder; a file `.lock` is left in it.

    Returns:
        False if another process holds it; True also when this one already does.

    Raises:
        OSError: if `.lock` cannot be written or is no file.
    """
    folder = folder.resolve()
    path = folder / ".lock"
    held = _held.get(path)
    if held is not None and path.exists():
        return True
    _require_kind(path, folder, "regular file")
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
        OSError: as the three checks below; `strerror` says why.
    """
    require_plain_path(folder)
    require_no_link_out(folder)
    require_kinds(folder)


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


def require_kinds(folder: Path) -> None:
    """Refuses a folder in which something that a run writes is of another kind.

    A named pipe would be waited for without end, and a folder in place of a file found
    only after the training.

    Args:
        folder: of a run; it need not exist.

    Raises:
        OSError: if a name of `WRITTEN` is there and no file, or no folder if it is one
            of `FOLDERS`, or if something below these is neither; `strerror` names it.
    """
    for name in WRITTEN:
        kind = "folder" if name in FOLDERS else "regular file"
        _require_kind(folder / name, folder, kind)
    for name in FOLDERS:
        for path in _below(folder / name):
            _require_kind(path, folder, "file or folder")


def _require_kind(path: Path, folder: Path, kind: str) -> None:
    """Refuses what is there and of another kind, also a link that leads nowhere."""
    try:
        mode = path.stat().st_mode
    except OSError:
        is_wanted = not path.is_symlink()
    else:
        is_wanted = any(is_kind(mode) for is_kind in _KINDS[kind])
    if not is_wanted:
        name = path.relative_to(folder)
        raise OSError(errno.EINVAL, f"{name} is not a {kind}, move it away")


def _target(path: Path) -> Path:
    """Where links lead; unlike `Path.resolve`, no error where they go in a circle."""
    return Path(os.path.realpath(path))


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))
