"""A training command as two processes that talk over the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import training_runs
from waiting import has_rows, wait_until

from expkit import jsonfile

CHEAP = "configs/lion/digits.py:smoke,dataset=synthetic:8x8x1:10,hidden=(64,64)"
BY_JAX = "another task died"
ROW = 25  # checkpoints are at 10, 20, ...
End = tuple[int, str, str]


def start(
    root: Path, workdir: Path, package: str, config: str, devices: int, **variables: str
) -> subprocess.Popen[str]:
    """Starts a process with a number of virtual devices."""
    command = [sys.executable, "-m", f"{package}.main", f"--config={config}"]
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=root,
        env=os.environ | {"XLA_FLAGS": flags} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(
    root: Path, workdir: Path, package: str, configs: Sequence[str], devices: int = 4
) -> list[subprocess.Popen[str]]:
    """Starts two processes that know of each other, each with its own config."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        start(
            root,
            workdir,
            package,
            config,
            devices,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index, config in enumerate(configs)
    ]


def finish(
    processes: Sequence[subprocess.Popen[str]], timeout: float = 600
) -> list[End]:
    """`[(status, out, err)]`; none is left behind."""
    try:
        ends = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *e) for p, e in zip(processes, ends, strict=True)]


class Pair:
    """Runs of two processes with a device each, which share all arrays.

    Attributes:
        root: of the checkout.
        folder: where the runs are.
    """

    CONFIG = (
        f"{CHEAP},num_steps=60,checkpoint_every=10,evaluate_every=0,batch_size=8,"
        "mesh=fsdp"
    )

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        self._succeed(self._start(folder / "whole"))

    def meet(
        self, signum: signal.Signals, process: int, *, processes_after: int = 2
    ) -> dict[str, Any]:
        """Sends a signal in the middle of a run, and starts the run again.

        Args:
            signum: the signal.
            process: which gets it: 0, which coordinates and writes, or 1.
            processes_after: 2, or 1 with two devices.

        Returns:
            How the other process exited, after how long and with which line, and how
            the next run compares with one that lost nothing.
        """
        workdir = self.folder / f"{signum.name}-{process}-{processes_after}"
        processes = self._start(workdir)
        wait_until(lambda: has_rows(ROW)(workdir), timeout=120)
        processes[process].send_signal(signum)
        begun = time.monotonic()
        status, _, err = finish(processes, timeout=100)[1 - process]
        # JAX itself may end the process before Python knows, and tells more after it.
        is_by_jax = status == -signal.SIGABRT
        lines = [x for x in err.splitlines() if not is_by_jax or BY_JAX in x]
        found = {
            "signal": signum.name,
            "process": process,
            "status": status,
            "seconds": time.monotonic() - begun,
            "line": lines[-1] if lines else "",
            "traceback": not is_by_jax and "Traceback" in err,
            "finished": (workdir / "result.json").exists(),
        }
        if processes_after == 2:
            again = self._start(workdir)
        else:
            again = [start(self.root, workdir, "lion", self.CONFIG, devices=2)]
        self._succeed(again)
        return found | {"processes_after": processes_after, **self._compare(workdir)}

    def _start(self, workdir: Path) -> list[subprocess.Popen[str]]:
        return start_two(self.root, workdir, "lion", [self.CONFIG] * 2, devices=1)

    def _succeed(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        for status, _, err in finish(processes):
            if status:
                raise RuntimeError(f"status {status}, {err.splitlines()[-3:]}")

    def _compare(self, workdir: Path) -> dict[str, Any]:
        runs = [self.folder / "whole", workdir]
        rows = [
            [*training_runs.rows(run), jsonfile.read(run / "result.json")]
            for run in runs
        ]
        errors = [
            abs(found[name] - figure) / abs(figure)
            for expected, found in zip(*rows, strict=True)
            for name, figure in expected.items()
            if figure
        ]
        return {
            "exact": rows[0] == rows[1],
            "largest_relative_error": max(errors),
        }
