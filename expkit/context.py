"""What a check gets to work with: a folder, a budget of seeds, and a memory."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expkit import environment, jsonfile

FIGURE = dict.fromkeys(("name", "caption", "alt", "command", "light", "dark"), str)
"""Fields of a row of `figures.json`."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What a check gets: where to write, how much to spend, and a memory.

    Attributes:
        out: folder of this experiment.
        full: whether all seeds are used.
        command: the command line that repeats this experiment.
        source: digest of the code; a remembered value is forgotten when it changes.
    """

    out: Path
    full: bool = False
    command: str = ""
    source: str = ""

    def seeds(self, quick: int = 3, full: int = 10) -> range:
        """The seeds to use.

        Args:
            quick: how many in quick mode.
            full: how many in full mode.

        Returns:
            `range(quick)` or `range(full)`.
        """
        return range(full if self.full else quick)

    @functools.cached_property
    def _stamp(self) -> dict[str, Any]:
        versions = environment.versions(environment.NUMERICAL)
        return {"full": self.full, "versions": versions, "source": self.source}

    def memo(self, name: str, fn: Callable[[], Any], **fingerprint: Any) -> Any:
        """Result of an expensive call, kept on disk so that a rerun does not repeat it.

        Args:
            name: file-name-safe name, unique in the experiment.
            fn: computes the value; called without arguments.
            **fingerprint: everything else the value depends on (seed, steps, grid).

        Returns:
            The value as JSON holds it, also the first time: tuples are lists, keys are
            strings, numbers that are not finite are None.

        Raises:
            ValueError: if `name` is no file name.
            TypeError: if the value or the fingerprint has no JSON form.
        """
        _check_name(name)
        key = jsonfile.plain(self._stamp | {"arguments": fingerprint})
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = self.out / "cache" / f"{name}-{digest[:16]}.json"
        kept = jsonfile.read(path)
        if isinstance(kept, dict) and kept.get("key") == key and "value" in kept:
            return kept["value"]
        value = jsonfile.plain(fn())
        jsonfile.write(path, {"key": key, "value": value})
        return value

    def figure(
        self,
        name: str,
        draw: Callable[[Any], None],
        caption: str,
        alt: str,
        size: tuple[float, float] | None = None,
    ) -> None:
        """Draws a figure for the report, in light and in dark.

        Args:
            name: file-name-safe name; a second figure of that name replaces the first.
            draw: draws on an empty `matplotlib.figure.Figure`; called twice, so it must
                not compute.
            caption: what the reader should see in it.
            alt: the same for a reader who cannot see it, with the main numbers.
            size: width and height in inches; None is what a phone can show.

        Raises:
            ValueError: if `name` is no file name, or `caption` or `alt` is empty.
        """
        from expkit import plots

        _check_name(name)
        if not caption.strip() or not alt.strip():
            raise ValueError(f"figure {name!r} needs a caption and an alt text.")
        row = {"name": name, "caption": caption, "alt": alt, "command": self.command}
        drawn = plots.render(draw, size or plots.SIZE)
        for theme, svg in zip(("light", "dark"), drawn, strict=True):
            row[theme] = f"figures/{name}-{theme}.svg"
            jsonfile.write_text(self.out / row[theme], svg)
        listed = jsonfile.read_objects(self.out / "figures.json", FIGURE)
        rows = {old["name"]: old for old in listed} | {name: row}
        jsonfile.write(self.out / "figures.json", list(rows.values()))


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"name must be letters, digits and ._-, got {name!r}.")
