"""The drawing of the training run in the report."""

import json
import re

import pytest

from expkit import environment, jsonfile, report


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Reports on losses; gives what was drawn, whether as logarithms, and captions."""
    facts = environment.describe(tmp_path, full=False, command="./reproduce.sh")
    evidence = {"version": 1, "environment": facts, "claims": []}
    jsonfile.write(tmp_path / "claims.json", evidence)
    train, drawn = tmp_path / "pkg" / "train", []
    jsonfile.write(train / "status.json", {"state": "finished", "command": "c"})
    curves = report.plots.curves

    def spy(ax, series, **words):
        drawn.append((series["loss"], words["log_y"]))
        curves(ax, series, **words)

    monkeypatch.setattr(report.plots, "curves", spy)

    def call(values):
        lines = [{"step": i + 1, "loss": value} for i, value in enumerate(values)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (train / "metrics.jsonl").write_text(text)
        page = report.write(tmp_path).read_text()
        return *drawn[0], re.findall("<figcaption>(.*)</figcaption>", page)

    return call


@pytest.mark.parametrize(
    ("values", "is_log", "note"),
    [
        ([1.0, 1e-3], True, ""),
        ([1.0, 1e-3, 0.0], True, " 0 is drawn as 0.001."),
        ([1.0, 0.0, -1.0], False, ""),
        ([0.0, 0.0], False, ""),
    ],
)
def test_losses_are_logarithmic_with_zeros_drawn_at_the_smallest_value(
    draw, values, is_log, note
):
    (_, mean, low, high), log_y, captions = draw(values)
    assert log_y is is_log
    assert list(mean) == list(low) == list(high)
    assert list(mean) == [value or (1e-3 if is_log else 0.0) for value in values]
    assert captions == [f"Loss of the training run of pkg.{note}"]
