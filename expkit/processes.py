"""Child processes that are stopped when their parent is, and get time to save.

A child that takes more memory than it is given is killed, before the machine is.
"""

import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

from expkit.signals import heeded

POLL = 0.2
"""Seconds between two looks at the child."""

PATIENCE = 60.0
"""Seconds that a stopped child has to save its work before it is killed."""


class TooMuchMemory(Exception):
    """A child and its children had more resident memory than they were given."""


class Interrupt:
    """Remembers the signals that ask to stop, instead of dying of them.

    Attributes:
        signum: the first signal received, None before.
        count: how many were received.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.count = 0
        self._before: dict[int, object] = {}

    def note(self, signum: int, frame: FrameType | None = None) -> None:
        """Remembers a signal; a SIGHUP after another signal is left out.

        Args:
            signum: the signal.
            frame: where it came; Python gives it to a handler.
        """
        del frame
        if signum == signal.SIGHUP and self.count:
            return  # the kernel and the shell both send one as a terminal is closed
        self.signum = self.signum or signum
        self.count += 1

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for signum in heeded():
                self._before[signum] = signal.signal(signum, self.note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)  # pyrefly: ignore[bad-argument-type]


def run(
    command: Sequence[str],
    cwd: Path,
    log: Path,
    interrupt: Interrupt,
    *,
    output: Path | None = None,
    max_memory: float = math.inf,
) -> int:
    """Runs a command in a process group of its own, until it ends or we are stopped.

    Args:
        command: program and arguments.
        cwd: its working directory.
        log: file for its standard error, and for its standard output if `output` is
            None.
        interrupt: once it has a signal, the child gets that signal and `PATIENCE`
            seconds; a second signal kills it at once.
        output: file for its standard output.
        max_memory: bytes that the child and its children may have resident.

    Returns:
        Its exit status, negative when a signal ended it.

    Raises:
        TooMuchMemory: if it had more than `max_memory`; it was killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as files:
        errors = files.enter_context(log.open("wb"))
        printed = files.enter_context(output.open("wb")) if output else errors
        child = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            process_group=0,
        )
        try:
            while interrupt.signum is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(POLL)
                if _resident(child.pid) > max_memory:
                    raise TooMuchMemory
            return _stop(child, interrupt)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _resident(pid: int) -> int:
    """Bytes in memory of a process and its children; 0 for one that has ended."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    return total


def _stop(child: subprocess.Popen, interrupt: Interrupt) -> int:
    """Passes the signal on and waits."""
    is_ctrl_c = interrupt.signum == signal.SIGINT
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT if is_ctrl_c else signal.SIGTERM)
    while interrupt.count < 2 and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(POLL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return child.wait()
