"""Where a training command kills itself: by the clock, and inside of what it writes.

Each function installs its trap in a process that is about to run the command.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import jax

from expkit.metrics import MetricsWriter

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"


def kill() -> None:
    """Ends the process as `kill -9` does: nothing of it runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def by_the_clock(seconds: float) -> None:
    """Kills after a time."""
    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()


def while_compiling(seconds: float, compiled: Path) -> None:
    """Kills a time after the compiler was given the step.

    Args:
        seconds: from the start of the compiler.
        compiled: a file that is made when the compiler is done.
    """

    def listen(event, duration, **about):
        del duration
        if about.get("fun_name") != "step" and "step" not in str(about):
            return
        if event == LOWERED:
            by_the_clock(seconds)
        if event == COMPILED:
            compiled.touch()

    jax.monitoring.register_event_duration_secs_listener(listen)


def on_file_operations(folder: Path, act) -> None:
    """Calls `act` before each file operation of Python below a folder."""
    prefix = str(folder)

    def hook(event, arguments):
        if event in OPERATIONS and str(arguments[0]).startswith(prefix):
            act()

    sys.addaudithook(hook)


OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir"}


def at_file_operation(folder: Path, number: int, seconds: float) -> None:
    """Kills a time after the n-th file operation below a folder begins."""
    left = number

    def count():
        nonlocal left
        left -= 1
        if left == 0:
            by_the_clock(seconds) if seconds else kill()

    on_file_operations(folder, count)


def count_file_operations(folder: Path, tally: Path) -> None:
    """Makes the size of a file the number of file operations below a folder."""
    descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT)
    on_file_operations(folder, lambda: os.write(descriptor, b"."))


def in_metrics_write(row: int, share: float) -> None:
    """Kills when a share of the n-th row of metrics has reached the file."""
    start = MetricsWriter.__init__

    def tear(self, *arguments, **options):
        start(self, *arguments, **options)
        self._file = _Torn(self._file, row, share)

    MetricsWriter.__init__ = tear


class _Torn:
    """A text file that kills in the middle of a write."""

    def __init__(self, file, row: int, share: float):
        self._file, self._row, self._share = file, row, share

    def write(self, text: str) -> None:
        self._row -= 1
        if self._row:
            self._file.write(text)
            return
        cut = text.encode()[: round(self._share * len(text.encode()))]
        self._file.flush()
        os.write(self._file.fileno(), cut)
        kill()

    def __getattr__(self, name):
        return getattr(self._file, name)
