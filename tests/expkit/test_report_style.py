"""The colours of the report can be read in the light and in the dark."""

import re
from pathlib import Path

import pytest

from expkit import report


def luminance(colour):
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return sum(w * c for w, c in zip([0.2126, 0.7152, 0.0722], linear, strict=True))


@pytest.mark.parametrize("theme", [0, 1])
def test_words_have_the_contrast_that_wcag_asks_for(theme):
    css = (Path(report.__file__).parent / "templates" / "report.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    pairs = [(ink, ground) for ink in ("ink", "quiet", "link") for ground in ("page",)]
    pairs += [("ink", "raised"), ("fails", "page")]
    pairs += [(name, f"{name}-ground") for name in ("holds", "fails", "open", "out")]
    for ink, ground in pairs:
        light, dark = sorted(
            (luminance(colours[ink]), luminance(colours[ground])), reverse=True
        )
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
