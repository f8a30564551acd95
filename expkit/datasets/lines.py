"""The lines of a UTF-8 file, plain or gzipped, within fixed limits.

A compressed file can unpack to a thousand times its size, so reading stops with an
error beyond `MAX_BYTES` bytes, `MAX_ROWS` lines, a line of `MAX_LINE` bytes, or, past
`FREE_BYTES`, `MAX_RATIO` times the size of the file: texts pack to a tenth or so. A
value of a character or two takes 80 bytes of memory, so readers keep no more than
`MAX_VALUES` of a file.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from expkit.datasets.errors import DataError

MAX_BYTES = 2**32
MAX_LINE = 2**24
MAX_ROWS = 2**25
MAX_VALUES = 2**23
FREE_BYTES = 2**24
MAX_RATIO = 200


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Reads a text file, with or without a byte order mark.

    Args:
        path: a UTF-8 file, unpacked on the fly when it ends in `.gz`.

    Returns:
        An iterator over the number of each line, from 1, and the line with its end.

    Raises:
        DataError: if the file cannot be read, unpacked or decoded, or is too large.
    """
    total = 0
    try:
        most = largest_content(path)
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number in range(1, MAX_ROWS + 2):
                line = file.readline(MAX_LINE + 1)
                if not line:
                    return
                total += len(line)
                _check_limits(path, number, len(line), total)
                if total > most:
                    raise DataError(
                        f"{path}, line {number}: unpacks to over {MAX_RATIO} times its "
                        "size, as archives made to fill a memory do; if the content is "
                        "meant, unpack the file."
                    )
                yield number, _decode(path, number, line)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again.") from error


def check_values(count: int, place: str) -> None:
    """Checks that a table does not hold too many values for the memory.

    Args:
        count: how many values are kept up to here; a token, a tag, and each of the two
            places of a span count as one, and so does a list.
        place: file and line, for the message.

    Raises:
        DataError: if there are more than `MAX_VALUES`.
    """
    if count > MAX_VALUES:
        raise DataError(
            f"{place}: more than {MAX_VALUES:,} values; split the file, or name fewer "
            "columns."
        )


def largest_content(path: Path) -> int:
    """Returns how many bytes a file may be unpacked to.

    Args:
        path: the file.

    Returns:
        A multiple of its size, and `FREE_BYTES` at least.

    Raises:
        OSError: if there is no such file.
    """
    return max(FREE_BYTES, MAX_RATIO * path.stat().st_size)


def _check_limits(path: Path, number: int, length: int, total: int) -> None:
    for what, value, limit in (
        ("bytes in one line", length, MAX_LINE),
        ("lines", number, MAX_ROWS),
        ("bytes unpacked", total, MAX_BYTES),
    ):
        if value > limit:
            raise DataError(
                f"{path}, line {number}: more than {limit:,} {what}; split the file."
            )


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: byte {line[error.start]:#04x} at position "
            f"{error.start} is not UTF-8; convert the file, for instance with iconv."
        ) from error
