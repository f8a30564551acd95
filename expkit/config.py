"""Configs: `file.py:smoke,learning_rate=3e-4`, and overrides of single fields.

A config file is a Python module (so it is trusted, like any code one runs) with
`get_config(arg="")` that returns a flat `ml_collections.ConfigDict`::

    def get_config(arg=""):
        config = ml_collections.ConfigDict()
        config.dataset = "digits"
        config.learning_rate = 1e-3  # peak
        return expkit.config.apply(config, arg, smoke={"num_steps": 2})

The type of a value is that of its default. Every error names the field, the value
received and what is allowed.
"""

import ast
import contextlib
import difflib
import math
import runpy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from expkit.messages import one_line

# What the fields that every config has may be; step counters are int32.
RANGES = {
    "seed": range(2**32),
    **dict.fromkeys(("num_steps", "batch_size"), range(1, 2**31)),
    **dict.fromkeys(("log_every", "evaluate_every", "checkpoint_every"), range(2**31)),
}
WHOLE = range(-(2**24), 2**24)  # of others: XLA aborts where products overflow int64
_TOO_MUCH = (OverflowError, RecursionError, MemoryError)


class ConfigError(ValueError):
    """A config, a flag or a run folder that cannot be used; the message is one line."""


@contextlib.contextmanager
def reporting_errors() -> Iterator[None]:
    """Turns a `ValueError` of what is built from a config into a `ConfigError`.

    Wrap what reads the config (data, model, optimizer), not the training: there a
    `ValueError` is a bug and should keep its traceback.

    Raises:
        ConfigError: for a `ValueError` in the body, with its message on one line.
    """
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(one_line(error)) from error


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Says what a wrong name may have meant.

    Args:
        name: what was received.
        allowed: the names that exist.

    Returns:
        `did you mean 'x'? (allowed: ...)`, or only the second part.
    """
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    listing = f"allowed: {', '.join(allowed)}"
    return f"did you mean {close[0]!r}? ({listing})" if close else listing


def choose(field: str, value: str, choices: Mapping[str, Any]) -> Any:
    """Looks up the value of a field that selects one of several things.

    Args:
        field: name of the field, for the message.
        value: name received.
        choices: what the names stand for.

    Returns:
        `choices[value]`.

    Raises:
        ConfigError: if there is no such choice.
    """
    if value not in choices:
        raise ConfigError(f"{field}={value!r} is unknown; {nearest(value, choices)}.")
    return choices[value]


def load(reference: str) -> ml_collections.ConfigDict:
    """Loads `path/to/file.py[:arg]`.

    Args:
        reference: path of a config file, optionally with the argument of its
            `get_config`.

    Returns:
        The config.

    Raises:
        ConfigError: if the file cannot be run or has no `get_config`, or refuses the
            argument, or gives something else.
    """
    path, _, arg = reference.partition(":")
    try:
        is_file = Path(path).is_file()
    except OSError as error:  # the path is too long
        reason = f"{error.strerror}; give --config the path of a .py file"
        raise ConfigError(f"config file {path!r:.300}: {reason}.") from error
    if not is_file:
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        found = ", ".join(sorted(str(p) for p in folder.glob("*.py")))
        found = found or "no .py file; start from the root of the repository"
        raise ConfigError(f"config file {path!r} not found; {folder} has: {found}.")
    try:
        names = runpy.run_path(path)
        if "get_config" not in names:
            raise ConfigError(f"{path!r} defines no get_config(arg).")
        config = names["get_config"](arg)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path!r} cannot be run: {error!r}.") from error
    is_frozen = isinstance(config, ml_collections.FrozenConfigDict)
    if is_frozen or not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"{path!r}: get_config must return an ml_collections.ConfigDict, got "
            f"{'None' if config is None else type(config).__name__}."
        )
    return config


def apply(
    config: ml_collections.ConfigDict, arg: str, *, smoke: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Applies the part behind the colon: `smoke` and `field=value`, comma-separated.

    Args:
        config: defaults, one field per setting.
        arg: for example `"smoke,learning_rate=3e-4"`; commas inside brackets do not
            separate.
        smoke: values for the quick mode, applied where `smoke` stands. Every step is
            logged then.

    Returns:
        The same config, changed.

    Raises:
        ConfigError: for an unknown word or field, or a value of the wrong type.
    """
    for word in _split(arg):
        if word == "smoke":
            config.update({"log_every": 1, **smoke})
        elif "=" in word:
            override(config, *word.split("=", 1))
        else:
            raise ConfigError(
                f"config argument {word!r} is neither 'smoke' nor field=value; "
                f"fields: {', '.join(sorted(config))}."
            )
    return config


def override(config: ml_collections.ConfigDict, field: str, text: str) -> None:
    """Sets one field from text.

    Args:
        config: changed in place.
        field: its name.
        text: the value; its type is that of the present one: true/false, a number, a
            tuple such as `(64,64)`, or text taken as it is.

    Raises:
        ConfigError: if there is no such field or the text has another type.
    """
    if field not in config:
        raise ConfigError(
            f"config has no field {field!r:.100}: {nearest(field, config.keys())}."
        )
    default = config[field]
    try:
        config[field] = _parse(text, default)
    except (KeyError, ValueError, SyntaxError, TypeError, *_TOO_MUCH) as error:
        kind = type(default).__name__
        raise ConfigError(
            f"config field {field}={text!r:.300} is not of type {kind} "
            f"(its default is {default!r})."
        ) from error


def check_ranges(config: ml_collections.ConfigDict) -> None:
    """Checks the fields that mean the same in every config, and all numbers.

    Args:
        config: those of `RANGES` that it lacks are not checked.

    Raises:
        ConfigError: for a value outside its range or not finite, and one in `RANGES`
            that is no whole number; the message names both.
    """
    for field, value in config.items():
        allowed = RANGES.get(field, WHOLE)
        limits = f"{allowed.start}..{allowed.stop - 1}"
        said = f"config field {field}={value!r:.300} must be"
        if field in RANGES and type(value) is not int:
            kind = type(value).__name__
            raise ConfigError(f"{said} a whole number in {limits}, not a {kind}.")
        numbers = value if isinstance(value, tuple) else (value,)
        if any(type(n) is int and n not in allowed for n in numbers):
            raise ConfigError(f"{said} in {limits}.")
        if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
            raise ConfigError(f"{said} finite.")


def _split(arg: str) -> list[str]:
    """Splits at the commas that are not inside brackets."""
    words, depth = [""], 0
    for character in arg:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return [word for word in words if word]


def _parse(text: str, default: Any) -> Any:
    """Reads text as the type of the default."""
    if isinstance(default, str):
        text.encode()  # bytes that are no text raise
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}[text.lower()]
    with warnings.catch_warnings():  # of literals that run into words, as in 1if
        warnings.simplefilter("ignore")
        return _coerce(ast.literal_eval(text), default)


def _coerce(value: Any, default: Any) -> Any:
    """Gives a value the type of the default, and items of a tuple that of its first."""
    if isinstance(default, tuple):
        items = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(_coerce(item, default[0]) if default else item for item in items)
    if type(default) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise TypeError(f"{value!r} is not a {type(default).__name__}")
    return value
