"""Paths that start with `~`, the home folder of a user."""

from pathlib import Path

from expkit.datasets.errors import DataError


def expand_home(path: str, source: str) -> Path:
    """Puts the home folder of a user in the place of `~` or `~name`.

    Args:
        path: a path.
        source: what gave it, for the message.

    Returns:
        The path without `~` in front.

    Raises:
        DataError: if there is no such user, or HOME is not set and the user of this
            process has no entry in the list of users.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{source} is in a home folder that is not known; name a folder without ~."
        ) from error
