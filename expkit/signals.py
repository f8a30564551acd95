"""Stopping where it is safe: signals are noted, and acted on between two steps."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any


class Stop:
    """Attributes: signum: number of the signal that asked to stop, or None."""

    signum: int | None = None


@contextlib.contextmanager
def stop_signal() -> Iterator[Stop]:
    """Notes SIGINT and SIGTERM instead of dying; a second one acts as usual.

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
        restore()

    for signum in (signal.SIGINT, signal.SIGTERM):
        # Only the main thread may set handlers; elsewhere signals act as usual.
        with contextlib.suppress(ValueError):
            previous[signum] = signal.signal(signum, note)
    try:
        yield stop
    finally:
        restore()


def exit_on_signals(name: str) -> None:
    """Makes SIGINT and SIGTERM end the process at once, with status 130 or 143.

    For the time in which nothing needs saving. An exception raised in a handler can be
    swallowed by a callback of the runtime that happens to be active, and the process
    then goes on; this cannot.

    Args:
        name: how the command is called, for the line on stderr.
    """

    def leave(signum, frame):
        del frame
        os.write(2, f"{name}: stopped by {signal.Signals(signum).name}.\n".encode())
        os._exit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, leave)
