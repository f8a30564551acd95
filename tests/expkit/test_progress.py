"""Progress: a line every few seconds in a log, a bar on a terminal."""

import io
import sys

import pytest

from expkit import progress
from expkit.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_the_first_and_the_last_step_and_one_line_a_period(clock, capsys):
    with Progress(0, 30) as bar:
        for step in range(1, 31):
            bar.update(step, f"loss {step}")
            clock[0] += 1.0
    steps = [line.split("]")[0][1:] for line in capsys.readouterr().err.splitlines()]
    assert steps == [f"{step}/30" for step in (1, 6, 11, 16, 21, 26, 30)]


def test_a_line_has_step_total_and_figures(clock, capsys):
    with Progress(6, 7) as bar:
        bar.update(7, "loss 0.5")
    captured = capsys.readouterr()
    assert captured.err == "[7/7] loss 0.5\n"
    assert captured.out == ""


def test_a_run_that_is_not_shown_prints_nothing(clock, capsys, monkeypatch):
    with Progress(6, 7, is_shown=False) as bar:
        bar.update(7, "loss 0.5")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress(6, 7, is_shown=False) as bar:
        bar.update(7, "loss 0.5")
    assert terminal.getvalue() == ""


def test_a_terminal_gets_a_bar_that_starts_where_the_run_resumes(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(40, 80) as bar:
        bar.update(80, "loss 0.5")
    text = terminal.getvalue()
    assert "50%" in text
    assert "80/80" in text
    assert "loss 0.5" in text
    assert "[80/80]" not in text
