"""Stopping where it is safe: signals are noted, and acted on between two steps."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask to stop: Ctrl-C, a request, and a terminal that is closed."""


def heeded() -> tuple[signal.Signals, ...]:
    """The signals of `STOPPING` that this process should obey.

    Returns:
        All of them, but for a SIGHUP that is ignored already: a command started with
        `nohup` wants to outlive its terminal.
    """
    is_kept = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return tuple(s for s in STOPPING if not (is_kept and s == signal.SIGHUP))


class Stop:
    """Attributes: signum: number of the signal that asked to stop, or None."""

    signum: int | None = None


@contextlib.contextmanager
def stop_signal() -> Iterator[Stop]:
    """Notes the signals of `heeded` instead of dying; a second one acts as usual.

    But for SIGHUP: the kernel and the shell both send it when a terminal is closed, so
    after a first one it is ignored, for as long as this process still lives.

    Yields:
        An object whose `signum` becomes the signal's number once one has come.
    """
    stop = Stop()
    previous: dict[int, Any] = {}

    def restore():
        while previous:
            signal.signal(*previous.popitem())

    def note(signum, frame):
        del frame
        stop.signum = signum
        if signum == signal.SIGHUP:
            previous[signum] = signal.SIG_IGN
        restore()

    for signum in heeded():
        # Only the main thread may set handlers; elsewhere signals act as usual.
        with contextlib.suppress(ValueError):
            previous[signum] = signal.signal(signum, note)
    try:
        yield stop
    finally:
        restore()


def exit_on_signals(name: str) -> None:
    """Makes the signals of `heeded` end the process at once, with 128 + their number.

    For the time in which nothing needs saving. An exception raised in a handler can be
    swallowed by a callback of the runtime that happens to be active, and the process
    then goes on; this cannot.

    Args:
        name: how the command is called, for the line on stderr.
    """

    def leave(signum, frame):
        del frame
        line = f"{name}: stopped by {signal.Signals(signum).name}.\n"
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, line.encode())
        os._exit(128 + signum)

    for signum in heeded():
        signal.signal(signum, leave)
