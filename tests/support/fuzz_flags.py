"""Mutated flags and assignments of every config, through the command line's code."""

import contextlib
import functools
import io
import json
import signal
import sys
from pathlib import Path
from unittest import mock

from absl.testing import flagsaver
from fuzz_bytes import mutate_text, pick
from fuzz_check import check_message, snapshot

from expkit import app, workdirs
from expkit import config as config_lib
from expkit.signals import STOPPING

ROOT = Path(__file__).parents[2]
WORDS = (
    *("", "0", "1", "-1", "2", "0.5", "1e-3", "1e999", "nan", "True", "false", "yes"),
    *(
        "(1,)",
        "()",
        "(0.5,)",
        "[2]",
        "{}",
        "'x'",
        "1if 2else 3",
        "0x10",
        "1_0",
        "\udcff",
    ),
    *(
        "-" * 5000 + "1",
        "(" * 5000,
        "9" * 5000,
        "1" + "0" * 400,
        "9" * 20,
        "a\nb",
        "\0",
    ),
    *(
        "__import__('os').system('true')",
        "lambda: 0",
        "train",
        "data:1",
        "日本",
        "../x",
    ),
)
OTHER_FLAGS = (
    *("--bogus=1", "--config.", "--config", "-config.seed", "--config.seed", "extra"),
    *("--flagfile=/nowhere", "--workdir", "--", "--config=", "--config=LICENSE", "-x"),
    *(
        "--config=configs",
        "--config=nowhere.py:smoke",
        "--config=" + "n" * 5000 + ".py",
    ),
    *("--noconfig", "--workdir=", "--config=\udcff.py", "--v=x", "--undefok=zz"),
)


@functools.cache
def configs() -> dict[str, dict]:
    """The values of every config in smoke form, by its path."""
    paths = sorted((ROOT / "configs").rglob("*.py"))
    return {str(path): config_lib.load(f"{path}:smoke").to_dict() for path in paths}


def command(argv, run) -> tuple[int, str, str]:
    """Status and output of the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    kept = sys.argv
    handlers = {s: signal.getsignal(s) for s in STOPPING}
    sys.argv = ["fuzz.main", *argv]
    try:
        with (
            flagsaver.flagsaver(),
            mock.patch("os._exit", sys.exit),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            app.main(run, name="fuzz.main", default_config="")
    except SystemExit as stop:
        return stop.code, out.getvalue(), err.getvalue()
    finally:
        sys.argv = kept
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    raise AssertionError("the command came back")


def assignments(rng, folder):
    """Values of fields: accepted with the type of the default, or refused."""
    path = pick(rng, configs())
    fields = configs()[path]
    words = [f"--config={path}:smoke", f"--workdir={folder / 'run'}"]
    changed, plain = {}, True
    for _ in range(rng.integers(1, 4)):
        name = pick(rng, fields)
        value = str(fields[name])
        if rng.random() < 0.7:
            value = pick(rng, WORDS) if rng.random() < 0.5 else mutate_text(rng, value)
            plain = False
        if rng.random() < 0.1:
            name, plain = mutate_text(rng, name), False
        words.append(f"--config.{name}={value}")
        changed[name] = value
    if rng.random() < 0.25:
        words.insert(rng.integers(len(words) + 1), pick(rng, OTHER_FLAGS))
        plain = False
    _check(words, folder, fields, changed, plain)


def arguments(rng, folder):
    """The part behind the colon of `--config`, of a config and of its path."""
    path = pick(rng, configs())
    fields = configs()[path]
    name = pick(rng, fields)
    reference = f"{path}:smoke,{name}={fields[name]}"
    which, plain = rng.integers(4), False
    if which == 0:
        plain = True
    elif which == 1:
        reference = path + ":" + mutate_text(rng, reference[len(path) + 1 :])
    elif which == 2:
        reference = mutate_text(rng, path) + ":smoke"
    else:
        reference = f"{path}:smoke,{name}={pick(rng, WORDS)}"
    words = [f"--config={reference}", f"--workdir={folder / 'run'}"]
    changed = {name: str(fields[name])} if plain else {}
    _check(words, folder, fields, changed, plain)


def _check(words, folder, fields, changed, plain) -> None:
    seen = []

    def run(config, workdir):
        workdirs.prepare(config, workdir)
        seen.append(config.to_dict())
        return {"figure": 1.0}

    before = snapshot(ROOT / "configs")
    status, out, err = command(words, run)
    after = {name.partition("/")[0] for name in snapshot(folder)}
    assert after <= {"run"}, "wrote outside of the workdir"
    assert snapshot(ROOT / "configs") == before
    if status == 2:
        assert not plain, f"refuses what is right: {err}"
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("fuzz.main: ")
        check_message(err.removesuffix("\n"))
        return
    assert (status, err) == (0, "")
    if not seen:  # help, which some mutations ask for
        return
    for name, default in fields.items():
        value = seen[0][name]
        assert type(value) is type(default), name
        told = changed.get(name)
        if told is None:
            continue
        if isinstance(default, str):
            assert value == told
        elif isinstance(default, bool):
            assert value == json.loads(told.lower())
        elif isinstance(default, int | float):
            with contextlib.suppress(ValueError):
                assert value == float(told) or value != value


CASES = {"assignments": assignments, "config arguments": arguments}
