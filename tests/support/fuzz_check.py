"""The rule of every fuzz case: an exact result, or one error of one line.

Whatever the input, nothing is written outside the folder that a case may write to, and
no more than a gibibyte of memory is asked for, even if it would never be touched.
"""

import collections
import contextlib
import hashlib
import os
import resource
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Case = Callable[[np.random.Generator, Path], None]

MEMORY = 2**30
SECONDS = 10  # of processors: the machine may be busy
LONGEST = 3000
"""Characters of a message; paths and some of what was received are in it."""


class Outcome(NamedTuple):
    """Attributes: value: what a reader returned; message: of its error, or None."""

    value: Any
    message: str | None


tally = collections.Counter()
"""How many inputs `attempt` has seen "read" and "refused"."""


def run_cases(name: str, case: Case, numbers: Iterable[int], folder: Path) -> None:
    """Runs cases of a kind, each from the seed of its number in a folder of its own.

    Args:
        name: of the kind.
        case: is given the generator of the case and its empty folder.
        numbers: of the cases.
        folder: in which those of the cases are.

    Raises:
        AssertionError: with the number, if a case breaks a rule or raises anything.
    """
    for number in numbers:
        root = folder / str(number)
        root.mkdir()
        rng = np.random.default_rng([zlib.crc32(name.encode()), number])
        try:
            case(rng, root)
        except Exception as error:
            kind = type(error).__name__
            message = f"case {number} of {name!r}: {kind}: {error}"
            raise AssertionError(message) from error
        shutil.rmtree(root)


def attempt(read: Callable[[], Any], root: Path, *names: str) -> Outcome:
    """Reads mutated input.

    Args:
        read: returns the value, or raises ValueError for input it cannot use.
        root: folder in which nothing may change.
        *names: of which the message of an error must have at least one.

    Returns:
        What came out; AssertionError if the rule is broken.
    """
    before, start = snapshot(root), time.process_time()
    try:
        with limited_memory(MEMORY):
            outcome = Outcome(read(), None)
    except ValueError as error:
        outcome = Outcome(None, str(error))
    except MemoryError as error:
        raise AssertionError("asks for more than the memory allowed") from error
    assert time.process_time() - start < SECONDS, "takes too long"
    assert snapshot(root) == before, "changed a file"
    tally["read" if outcome.message is None else "refused"] += 1
    if outcome.message is not None:
        check_message(outcome.message, *names)
    return outcome


def check_message(message: str, *names: str) -> None:
    """Checks that a message is one line of bounded length with one of the names."""
    assert len(message.splitlines()) == 1, f"not one line: {message!r}"
    assert len(message) < LONGEST, f"{len(message)} characters: {message[:200]!r}"
    assert "Traceback" not in message
    if names:
        assert any(name in message for name in names), f"names nothing: {message!r}"


def snapshot(root: Path) -> dict[str, str]:
    """Every path below a folder with its kind, and the digest of each file."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


@contextlib.contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Makes this process fail to allocate much more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
