"""Counting traces and XLA compilations.

A function that retraces has a changing Python argument or a changing aval; a function
that compiles without retracing has changing placements, or builds a new `jax.jit` on
every call. The two counts tell them apart.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax


class CompilationLog(logging.Handler):
    """The XLA compilations that happened while the log was open.

    Attributes:
        names: name of each compiled computation, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the name of the computation if the record is about a compilation.

        Args:
            record: any record of jax's loggers.
        """
        message = record.getMessage()
        if message.startswith("Finished XLA compilation of "):
            name = message.removeprefix("Finished XLA compilation of ")
            self.names.append(name.split(" in ")[0])


@contextlib.contextmanager
def count_compilations() -> Iterator[CompilationLog]:
    """Counts what XLA compiles inside a `with` block, in this thread.

    Example::

        with count_compilations() as log:
            step(params, batch)
        assert not log.names

    Returns:
        A context manager; its value is the log, filled as compilations happen.
    """
    logger, log = logging.getLogger("jax"), CompilationLog()
    handlers, propagate = logger.handlers[:], logger.propagate
    logger.handlers = [log]
    logger.propagate = False
    try:
        with jax.log_compiles(True):
            yield log
    finally:
        logger.handlers, logger.propagate = handlers, propagate


class TraceCounter:
    """Number of times Python ran a function; under `jax.jit`, the number of traces.

    Attributes:
        count: calls so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def wrap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Counts the calls of a function.

        Args:
            fn: the function to count; pass the result to `jax.jit`.

        Returns:
            A function that behaves like `fn`.
        """

        @functools.wraps(fn)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return fn(*args, **kwargs)

        return counted
