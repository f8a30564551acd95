"""Small changes to bytes and texts, drawn from a generator with a fixed seed."""

import numpy as np

TOKENS = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",  # half of a surrogate pair, which is not UTF-8
    b"\xe2\x80\xa8",  # a line separator that ends no line of a file
    b"\xc2\x85",
    b'"',
    b"'",
    b",",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\\",
    b"{",
    b"}",
    b"[" * 300,
    b"[" * 20_000,
    b":",
    b"-",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"1_0",
    b"9" * 30,
    b"9" * 5000,
    b"9223372036854775808",
    b'"\\ud800"',
    b"\x1b[2J",
    b"null",
    "日本".encode(),
    b"../../x",
)


def mutate(rng: np.random.Generator, content: bytes, most: int = 3) -> bytes:
    """Applies one to `most` changes."""
    for _ in range(rng.integers(1, most + 1)):
        content = CHANGES[rng.integers(len(CHANGES))](rng, content)
    return content


def mutate_text(rng: np.random.Generator, text: str) -> str:
    """Like `mutate`, for a text that stays one."""
    return mutate(rng, text.encode(), most=2).decode(errors="replace")


def pick(rng: np.random.Generator, items):
    """One of the items, as it is."""
    return list(items)[rng.integers(len(items))]


def _two(rng, content):
    return sorted(int(i) for i in rng.integers(0, len(content) + 1, 2))


def _cut(rng, content):
    return content[: rng.integers(0, len(content) + 1)]


def _drop(rng, content):
    start, stop = _two(rng, content)
    return content[:start] + content[stop:]


def _repeat(rng, content):
    start, stop = _two(rng, content)
    return content[:stop] + content[start:stop] + content[stop:]


def _flip(rng, content):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if changed:
            changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def _insert(rng, content):
    at = rng.integers(0, len(content) + 1)
    return content[:at] + pick(rng, TOKENS) + content[at:]


def _replace(rng, content):
    start, stop = _two(rng, content)
    stop = min(stop, start + 12)
    return content[:start] + pick(rng, TOKENS) + content[stop:]


def _noise(rng, content):
    at = rng.integers(0, len(content) + 1)
    return content[:at] + rng.bytes(rng.integers(1, 9)) + content[at:]


def _swap_lines(rng, content):
    lines = content.splitlines(keepends=True)
    if len(lines) > 1:
        a, b = rng.integers(len(lines), size=2)
        lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _drop_line(rng, content):
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[rng.integers(len(lines))]
    return b"".join(lines)


CHANGES = (
    _cut,
    _drop,
    _repeat,
    _flip,
    _insert,
    _insert,
    _replace,
    _noise,
    _swap_lines,
    _drop_line,
)
