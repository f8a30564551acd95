"""How far a run is: a bar on a terminal, otherwise a line every few seconds."""

import shutil
import sys
import time

import tqdm


class Progress:
    """Shows steps done, or nothing if not `is_shown`; use it as a context manager."""

    SECONDS_BETWEEN_LINES = 5.0

    def __init__(self, first: int, total: int, *, is_shown: bool = True):
        self._is_terminal = is_shown and sys.stderr.isatty()
        self._has_lines = is_shown and not self._is_terminal
        size = shutil.get_terminal_size()
        self._bar = tqdm.tqdm(
            initial=first,
            total=total,
            unit="step",
            disable=not self._is_terminal,
            # A terminal may say that it has no size; tqdm would show nothing.
            ncols=size.columns,
            nrows=size.lines,
        )
        self._total, self._next_line = total, time.monotonic()

    def update(self, step: int, text: str) -> None:
        """Shows that a step is done.

        Args:
            step: number of steps done.
            text: figures to show beside it.
        """
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)
        if self._has_lines and (
            time.monotonic() >= self._next_line or step == self._total
        ):
            print(f"[{step}/{self._total}] {text}", file=sys.stderr, flush=True)
            self._next_line = time.monotonic() + self.SECONDS_BETWEEN_LINES

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
