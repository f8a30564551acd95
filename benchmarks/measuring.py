"""What the benchmarks share: the command line, the clock, and the file of results.

seconds = measuring.least_seconds({"ours": ours, "theirs": theirs}, arguments.rounds)
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from expkit import environment, jsonfile

FOLDER = Path(__file__).parent


def parser(doc: str, *, rounds: int | None) -> argparse.ArgumentParser:
    """The options of a benchmark; one that times nothing has no `--rounds`."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--out", type=Path, help="JSON file; default: by device")
    return made


def least_seconds(
    runs: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, float]:
    """The least time of every function; a round goes through all of them in turn."""
    least = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        jax.block_until_ready(run())  # what a first call compiles or loads is not timed
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def device_name() -> str:
    """The device as file names have it, such as `cpu` or `nvidia-h200`."""
    return jax.devices()[0].device_kind.replace(" ", "-").lower()


def save(
    script: str,
    arguments: argparse.Namespace,
    *,
    question: str,
    notes: str,
    tables: Mapping[str, list[dict]],
    columns: Mapping[str, Mapping[str, str]],
    **more: Any,
) -> None:
    """Writes the tables of a script and where they come from, and prints the path."""
    name = Path(script).stem
    out = arguments.out or FOLDER / f"results/{name}-{device_name()}.json"
    described = environment.describe(
        FOLDER.parent, full=True, command=f"python benchmarks/{name}.py"
    )
    rounds = {"rounds": arguments.rounds} if "rounds" in arguments else {}
    content = {
        "question": question,
        "notes": notes,
        "columns": columns,
        **rounds,
        "environment": described | {"device": environment.device()},
        "tables": tables,
        **more,
    }
    jsonfile.write(out, content)
    print(out)
