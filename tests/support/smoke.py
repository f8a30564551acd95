"""Runs configs in smoke form, in this process; what two tests ask for runs once."""

import importlib
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from expkit import config as config_lib
from expkit import jsonfile, loop, metrics

STEPS = 2
FIELDS = ("dataset", "seed", "num_steps", "batch_size")
TRAINING_FIELDS = ("weight_decay", "checkpoint_every")


def missing_fields(config) -> list[str]:
    """The agreed fields that a config lacks."""
    wanted = FIELDS + (TRAINING_FIELDS if "learning_rate" in config else ())
    return [field for field in wanted if field not in config]


def problems(run: Callable, config, workdir: Path) -> list[str]:
    """What is wrong with a two-step run of a config."""
    found = [f"config has no field {name!r}" for name in missing_fields(config)]
    try:
        result = run(config, str(workdir))
    except Exception as error:
        return [*found, f"stops with {error!r}"]
    if jsonfile.read(workdir / "config.json") != jsonfile.plain(config.to_dict()):
        found.append("config.json is not the config")
    rows = metrics.read(workdir / "metrics.jsonl")
    steps = [row["step"] for row in rows]
    if steps != list(range(1, STEPS + 1)):
        found.append(
            f"metrics.jsonl has the steps {steps}, not one row for each of two"
        )
    for row in rows:
        loss = row.get("loss")
        if loss is None or not math.isfinite(loss):
            found.append(f"the loss of step {row['step']} is {loss}")
    if not result or not all(map(math.isfinite, result.values())):
        found.append(f"the result is {result}")
    return found


def load(root: Path, reference: str):
    """A config in smoke form."""
    path, _, arg = reference.partition(":")
    return config_lib.load(f"{root / path}:{arg},smoke")


class Captured(Exception):
    """Raised instead of training, with the step and the first state and batch."""


def captured_step(root: Path, package: str, reference: str, workdir: Path) -> tuple:
    """What `train.py` of a package hands to the loop, before anything is compiled."""

    def fit(step, state, batches, **options):
        raise Captured(step, state, batches[0])

    run = importlib.import_module(f"{package}.train").run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "fit", fit)
        with pytest.raises(Captured) as stop:
            run(load(root, reference), str(workdir))
    return stop.value.args


_problems: dict[tuple[str, str], list[str]] = {}


def problems_of(root: Path, package: str, reference: str) -> list[str]:
    """What is wrong with `python -m package.main --config=reference` in smoke form."""
    config = load(root, reference)
    # Two references with the same values are one run.
    key = package, json.dumps(jsonfile.plain(config.to_dict()), sort_keys=True)
    if key not in _problems:
        run = importlib.import_module(f"{package}.train").run
        with tempfile.TemporaryDirectory() as workdir:
            _problems[key] = problems(run, config, Path(workdir))
    return _problems[key]
