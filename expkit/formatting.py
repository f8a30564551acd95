"""How the report writes numbers, intervals, seeds, addresses and settings."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expkit import markdown

MINUS = "\N{MINUS SIGN}"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any) -> str:
    """A measured value as the page shows it.

    Args:
        value: a number, a text, or None for "nothing to show".

    Returns:
        Four significant digits; a dash for None.
    """
    if value is None:
        return "\N{EN DASH}"
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"
    digits, _, power = text.partition("e")
    if power:
        digits += "\N{MULTIPLICATION SIGN}10" + str(int(power)).translate(RAISED)
    return digits.replace("-", MINUS)


def interval(ends: Sequence[float | None]) -> str:
    """An interval as the page shows it.

    Args:
        ends: low and high; None for an end that is not finite.

    Returns:
        Text such as `0.91 to 0.95`; `all equal` where nothing varies, which is not an
        interval of anything.
    """
    low, high = ends
    if low is not None and low == high:
        return "all equal"
    low_text = f"{MINUS}∞" if low is None else number(float(low))
    return f"{low_text} to {'∞' if high is None else number(float(high))}"


def seeds(values: Sequence[int]) -> str:
    """Seeds as the page shows them.

    Args:
        values: the seeds.

    Returns:
        Text such as `0, 1, 2`, or `0 to 9` for a longer run of neighbours.
    """
    if len(values) > 3 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(str(value) for value in values)


def cores(count: int) -> str:
    """A number of processor cores as the page shows it.

    Args:
        count: at least 1.

    Returns:
        Text such as `1 core` or `2 cores`.
    """
    return "1 core" if count == 1 else f"{count} cores"


def duration(seconds: float) -> str:
    """A duration in words.

    Args:
        seconds: at least 0.

    Returns:
        Such as `12 s`, `3 min 5 s` or `2 h 10 min`.
    """
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def pieces(text: str) -> list[tuple[str, str]]:
    """A text cut at its web addresses.

    Args:
        text: any text.

    Returns:
        `(words, address)` pairs; the address is "" for plain words.
    """
    found = []
    for part in re.split(r"(https?://[^\s<>\"']*[^\s<>\"'.,;:)\]])", text):
        is_address = part.startswith(("http://", "https://"))
        if part:
            found.append((part.partition("://")[2], part) if is_address else (part, ""))
    return found


def words(line: str) -> list[str]:
    """A command line cut where it may be broken: not inside a quoted word.

    Args:
        line: the command line.

    Returns:
        Its words, quoted where a shell needs it.
    """
    try:
        return [shlex.quote(word) for word in shlex.split(line)]
    except ValueError:  # an odd quote: then it is no command line
        return line.split()


def slug(text: str) -> str:
    """A text as an HTML id.

    Args:
        text: any text.

    Returns:
        The same with everything but letters, digits and `._-` replaced.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines of a table.

    Args:
        settings: a JSON object.
        prefix: put before each name.

    Returns:
        `(name, value)` pairs, inner names joined by dots.
    """
    lines = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            text = ", ".join(number(part) for part in value)
            lines.append((prefix + key, f"[{text}]"))
        else:
            lines.append((prefix + key, number(value)))
    return lines


def origin(source: str) -> tuple[str, str]:
    """Whose claim it is, without the place in the paper.

    Args:
        source: where the claim is from, such as "A et al. 2020, section 3. https://...".

    Returns:
        `(name, address)`: the words before the first comma, and the first web address,
        "" where there is none.
    """
    addresses = [address for _, address in pieces(source) if address]
    name = re.split(r",|\s*https?://", source, maxsplit=1)[0].strip().rstrip(".")
    return name, addresses[0] if addresses else ""


def introduction(readme: Path) -> dict[str, Any]:
    """What the report says about a package before its claims.

    Args:
        readme: `README.md` in the folder of the package; it need not exist.

    Returns:
        `title` and `text`, the first paragraph, as plain text; `idea`, `published` and
        `differences`, the sections of that name, as Markdown; "" for what is missing.
        `formulas`: `[name, LaTeX]` of the functions, in the order of the section "API".
    """
    sections = ("idea", "published", "differences")
    found: dict[str, Any] = dict.fromkeys(("title", "text", *sections), "")
    found["formulas"] = []
    if not readme.is_file():
        return found
    whole = readme.read_text(encoding="utf-8")
    found |= {name: markdown.section(whole, name.capitalize()) for name in sections}
    order = markdown.section(whole, "API")
    found["formulas"] = [list(p) for p in markdown.formulas(readme.parent, order)]
    for block in re.split(r"\n\s*\n", whole):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("#"):
            found["title"] = found["title"] or _plain(lines.pop(0).lstrip("# "))
        text = _plain(" ".join(line.strip() for line in lines))
        if text and not re.match(r"[|<>`$-]", text):
            return found | {"text": text}
    return found


def _plain(markdown: str) -> str:
    """Markdown without pictures, link targets and emphasis."""
    text = re.sub(
        r"\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)|!\[[^\]]*\]\([^)]*\)", "", markdown
    )
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(\*\*|__)(.+?)\1", r"\2", text)
    return re.sub(r"`([^`]+)`", r"\1", text).strip()
