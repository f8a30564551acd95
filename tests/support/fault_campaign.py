"""Runs a training command under faults, and compares with a run that met none."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import forked
import jax
import kill_points
import numpy as np
import orbax.checkpoint as ocp
import training_runs
from fault_cases import FULL_DISK, Case, fill_disk, send, small_disk

from expkit import jsonfile

WINDOWS = ("clock", "compilation", "checkpoint", "metrics")
LAST = 40


class Campaign:
    """Faults on runs in one folder, all of the same config.

    Attributes:
        folder: where the runs are.
        seconds: that the undisturbed run took.
        operations: number of its file operations in the folder of checkpoints.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.cache = folder / "cache"
        tally = folder / "tally"
        checkpoints = folder / "reference/checkpoints"
        start = time.perf_counter()
        self._train(
            folder / "reference",
            fault=lambda _: kill_points.count_file_operations(checkpoints, tally),
        )
        self.seconds = time.perf_counter() - start
        self.operations = tally.stat().st_size
        self._expected = self._outcome(folder / "reference")
        steps = [row["step"] for row in self._expected[0]]
        if steps != list(range(1, LAST + 1)) or not self._expected[2]:
            raise RuntimeError("the undisturbed run did not write what it should.")

    def kill(self, number: int, seed: int) -> dict[str, Any]:
        """Kills a run at an instant drawn from the seed, and runs it again.

        Args:
            number: of the kill; says which window it falls into.
            seed: of the instants.

        Returns:
            The window, what the killed run left, and whether the next one ended exact.
        """
        rng = np.random.default_rng([seed, number])
        window = WINDOWS[number % len(WINDOWS)]
        workdir = self.folder / f"kill-{number}"
        compiled = workdir.with_suffix(".compiled")
        share, delay = rng.uniform(), rng.uniform()
        tries, seconds = 0, 2 * share * self.seconds
        while True:
            tries += 1
            seconds /= 2
            fault = {
                "clock": lambda _, s=seconds: kill_points.by_the_clock(s),
                "compilation": lambda _: kill_points.while_compiling(
                    0.1 * delay, compiled
                ),
                "checkpoint": lambda _: kill_points.at_file_operation(
                    workdir / "checkpoints",
                    1 + int(share * self.operations),
                    0.005 * delay * (number % 8 >= 4),
                ),
                "metrics": lambda _: kill_points.in_metrics_write(
                    1 + int(share * LAST), delay
                ),
            }[window]
            # Without the cache the compiler takes its time, and may be hit.
            cache = None if window in ("clock", "compilation") else self.cache
            child = forked.train_command(workdir, fault=fault, cache=cache)
            status = child.wait()
            if status == -signal.SIGKILL:
                break
            if status or window != "clock" or tries > 5:
                raise RuntimeError(f"was not killed: {status}, {child.lines()}")
            workdir.rename(workdir.with_name(f"{workdir.name}-missed-{tries}"))
        left = _left(workdir) | {"compiled": compiled.exists()}
        self._train(workdir)
        return {"window": window, **left, "exact": self.is_exact(workdir)}

    def meet(self, case: Case, workdir: Path | None = None) -> dict[str, Any]:
        """Runs the command under a fault, and again without it.

        Returns:
            How the command exited, its last line, whether it ended exact, and whether
            the next one did.
        """
        workdir = workdir or self.folder / case.name.replace(" ", "-")
        if case.before:
            stop = send(signal.SIGTERM)
            self._train(workdir, fault=stop, status=128 + signal.SIGTERM)
            case.before(workdir)
        child = forked.train_command(workdir, fault=case.fault, cache=self.cache)
        status, lines = child.wait(), child.lines()
        found: dict[str, Any] = {
            "fault": case.name,
            "status": status,
            "line": lines[-1] if lines else "",
            "traceback": any(line.startswith("Traceback") for line in lines),
            "exact": status == 0 and self.is_exact(workdir),
        }
        if status:
            if case.after:
                case.after(workdir)
            again = forked.train_command(workdir, cache=self.cache)
            found["next_status"] = again.wait()
            found["next_exact"] = not found["next_status"] and self.is_exact(workdir)
        return found

    def meet_full_disk(self) -> dict[str, Any] | None:
        """Fills a small disk under a run; None where none can be mounted."""
        with small_disk(self.folder / "disk") as is_mounted:
            if not is_mounted:
                return None
            free = lambda workdir: (workdir.parent / "filler").unlink()  # noqa: E731
            case = Case(FULL_DISK, "No space left", 1, fill_disk, after=free)
            return self.meet(case, self.folder / "disk/run")

    def change_devices(self, before: int, after: int) -> dict[str, Any]:
        """Stops a run on some devices and goes on with others."""
        workdir = self.folder / f"devices-{before}-{after}"
        stop = send(signal.SIGTERM)
        self._train(workdir, fault=stop, devices=before, status=128 + signal.SIGTERM)
        self._train(workdir, devices=after)
        found, expected = _rows(workdir), self._expected[0]
        errors = [
            abs(a["loss"] - b["loss"]) / abs(b["loss"])
            for a, b in zip(found, expected, strict=True)
        ]
        return {
            "before": before,
            "after": after,
            "largest_relative_error": max(errors),
            "exact": self.is_exact(workdir),
        }

    def is_exact(self, workdir: Path) -> bool:
        """Whether a finished run wrote what the undisturbed one did."""
        return self._outcome(workdir) == self._expected

    def _outcome(self, workdir: Path) -> tuple[list, Any, dict[str, str]]:
        saved = workdir / "checkpoints" / str(LAST) / "state"
        child = forked.fork(lambda: _print_arrays(saved))
        if child.wait():
            return [], None, {}
        result = jsonfile.read(workdir / "result.json")
        return _rows(workdir), result, json.loads(child.lines()[-1])

    def _train(self, workdir: Path, *, status: int = 0, **options: Any) -> None:
        child = forked.train_command(workdir, cache=self.cache, **options)
        found = child.wait()
        if found != status:
            raise RuntimeError(f"{workdir}: status {found}, {child.lines()[-3:]}")


def _print_arrays(saved: Path) -> None:
    """Prints the bytes of all arrays of a checkpoint, as Orbax reads them."""
    arrays = ocp.StandardCheckpointer().restore(saved)
    content = {}
    for name, leaf in arrays.items():
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        content[name] = f"{leaf.dtype} {np.asarray(leaf).tobytes().hex()}"
    print("\n" + json.dumps(content))


def _rows(workdir: Path) -> list[dict[str, Any]]:
    """The rows without what the clock says; raises where a line is not a row."""
    path, rows = workdir / "metrics.jsonl", training_runs.rows(workdir)
    if len(rows) != path.read_bytes().count(b"\n"):
        raise RuntimeError(f"{path} has lines that are not rows.")
    return rows


def _left(workdir: Path) -> dict[str, Any]:
    """What a killed run left behind."""
    path = workdir / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    folders = [p.name for p in (workdir / "checkpoints").glob("*")]
    return {
        "rows": content.count(b"\n"),
        "half_row": bool(content) and not content.endswith(b"\n"),
        "half_checkpoint": any("tmp" in name for name in folders),
        "checkpoints": sorted(int(name) for name in folders if name.isdigit()),
        "finished": (workdir / "result.json").exists(),
    }
