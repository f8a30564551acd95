"""Standard streams that are closed, full, or a pipe that nobody reads any more.

What a command computes is in its folder, so a line that cannot be shown must not end
it: `./reproduce.sh | head` goes on, and so does a run under `nohup` whose terminal is
gone. Without `nohup` that is a SIGHUP: the run saves and ends, see `expkit.signals`.
"""

import contextlib
import os
import sys
from typing import Any, TextIO


class _Lossy:
    """A stream that goes on into the null device after an error."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            return self._drop(error) or len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        _open_null(self._stream.fileno())
        with contextlib.suppress(OSError):
            self._stream.flush()  # what is left would be told of at the exit
        if self is sys.stdout:
            reason = f"standard output cannot be written ({error.strerror})"
            print(f"{reason}; going on without it.", file=sys.stderr, flush=True)


def keep_going() -> None:
    """Lets this process outlive its standard streams.

    Closed ones are the null device from here on; otherwise the next file that is opened
    would get their number, and what libraries print would be written in it. Open ones
    become it with their first error, which is told once if it is that of the output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _open_null(number)
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
        elif number and not isinstance(stream, _Lossy):
            setattr(sys, name, _Lossy(stream))


def _open_null(number: int) -> None:
    """Makes a file descriptor the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
