"""Sets of TFDS that the user has prepared.

Preparing one downloads, and often needs TensorFlow, so it is left to a command that the
error names; nothing here asks the network.
"""

import contextlib
import importlib
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expkit.datasets.errors import DataError, suggestion
from expkit.datasets.home import expand_home
from expkit.messages import one_line

# TFDS imports these in one go and gives up at the first that fails, and with it on all
# that follow; without h5py that hides `glue` and `conll2003`.
_SECTIONS = (
    "audio",
    "graphs",
    "image",
    "image_classification",
    "nearest_neighbors",
    "object_detection",
    "question_answering",
    "ranking",
    "recommendation",
    "structured",
    "summarization",
    "text",
    "text_simplification",
    "time_series",
    "translate",
    "video",
    "vision_language",
)


def data_root() -> Path:
    """Returns the folder of all prepared sources.

    Returns:
        `$TFDS_DATA_DIR`, or `~/tensorflow_datasets` when it is not set.

    Raises:
        DataError: if it is in a home folder that is not known.
    """
    root = os.environ.get("TFDS_DATA_DIR")
    if root:
        return expand_home(root, f"TFDS_DATA_DIR={root!r}")
    default = "~/tensorflow_datasets"
    return expand_home(default, f"TFDS_DATA_DIR, by default {default!r},")


def is_prepared(builder: Any) -> bool:
    """Tells whether a TFDS builder has its data on disk.

    Args:
        builder: a TFDS builder.

    Returns:
        True when the data can be read.
    """
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def open_foreign(name: str, own: Sequence[str]) -> Any:
    """Opens a set of TFDS.

    Args:
        name: such as `"glue/rte"`, `"conll2003"` or `"glue/rte:2.0.0"`.
        own: names of our own sources, for messages.

    Returns:
        A TFDS builder, prepared.

    Raises:
        ValueError: if there is no such set.
        DataError: if it is not prepared or TFDS cannot open it.
    """
    import tensorflow_datasets as tfds

    for section in _SECTIONS:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"tensorflow_datasets.{section}")
    _check_name(name, own)
    try:
        builder: Any = tfds.builder(name, data_dir=str(data_root()))
    except Exception as error:
        reason = one_line(error, 300)
        raise DataError(f"TFDS cannot open {name!r}: {reason}") from error
    if not is_prepared(builder):
        raise DataError(
            f"{name!r} is not prepared in {data_root()}; on a machine with a network "
            f"run: {preparing_command(name, builder)}"
        )
    return builder


def _check_name(name: str, own: Sequence[str]) -> None:
    import tensorflow_datasets as tfds

    # A namespace, as in `huggingface:glue`, would ask the network; it does not match.
    match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::[\d.]+)?", name)
    known = tfds.list_builders(with_community_datasets=False)
    if match and (data_root() / match[1] / (match[2] or "")).is_dir():
        return
    if match is None or match[1] not in known:
        raise ValueError(
            f"unknown data source {name!r}; own sources are {', '.join(own)}, "
            "file:PATH and synthetic:SHAPE:CLASSES, and any other name is one of TFDS"
            f"{suggestion(match[1] if match else name, [*own, *known])}"
        )
    configs = []
    with contextlib.suppress(Exception):
        configs = list(tfds.builder_cls(match[1]).builder_configs)
    if match[2] and configs and match[2] not in configs:
        raise ValueError(
            f"unknown configuration {match[2]!r} of {match[1]!r}, which has "
            f"{', '.join(configs[:20])}{suggestion(match[2], configs)}"
        )


def preparing_command(name: str, builder: Any) -> str:
    """Returns the shell command that prepares a set for this package.

    Args:
        name: of the set.
        builder: its TFDS builder.

    Returns:
        One line, with a note when the set also needs TensorFlow.
    """
    import tensorflow_datasets as tfds

    modules = "tensorflow_datasets as tfds"
    package, section, *_ = [*type(builder).__module__.split("."), ""]
    if package == "tensorflow_datasets" and section in _SECTIONS:
        modules += f", tensorflow_datasets.{section}"
    # TFDS 4.9 needs this package to prepare anything but does not depend on it.
    has_resources = importlib.util.find_spec("importlib_resources") is not None
    command = "" if has_resources else "pip install importlib_resources && "
    command += (
        f'python -c "import {modules}; tfds.builder({name!r}, '
        f"data_dir={str(data_root())!r}, file_format='array_record')"
        '.download_and_prepare()"'
    )
    media = (tfds.features.Image, tfds.features.Video, tfds.features.Audio)
    if any(isinstance(f, media) for f in builder.info.features.values()):
        command += " (with TensorFlow installed, which its features need)"
    return command
