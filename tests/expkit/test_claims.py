import json
import subprocess
import sys

import numpy as np
import pytest

from expkit import claim_rows, claims, context
from expkit.claims import Claim, Context, Finding


def test_a_verdict_outside_the_four_is_refused():
    for verdict in claims.VERDICTS:
        assert Finding(1.0, verdict).verdict == verdict
    with pytest.raises(ValueError, match=r"one of holds, .* got 'maybe'"):
        Finding(1.0, "maybe")


@pytest.mark.parametrize(
    ("is_true", "verdict"),
    [(True, "holds"), (False, "does not hold"), (np.float32(1) > 2, "does not hold")],
)
def test_an_identity_holds_or_does_not(is_true, verdict):
    finding = claims.exact(is_true, 2.0, "why")
    assert (finding.verdict, finding.measured, finding.details) == (verdict, 2.0, "why")


def test_what_cannot_be_tested_says_what_it_needs(tmp_path):
    finding = claims.not_testable("ImageNet")(Context(tmp_path))
    assert finding.verdict == "not testable here"
    assert finding.measured is None
    assert "ImageNet" in finding.details
    with pytest.raises(ValueError, match="needs must say"):
        claims.not_testable(" ")


def test_quick_seeds_are_the_first_of_the_full_ones(tmp_path):
    quick, full = Context(tmp_path).seeds(), Context(tmp_path, full=True).seeds()
    assert (list(quick), list(full)) == ([0, 1, 2], list(range(10)))
    assert Context(tmp_path, full=True).seeds(1, 4) == range(4)


class Counter:
    """Counts its calls."""

    def __init__(self, value):
        self.calls, self.value = 0, value

    def __call__(self):
        self.calls += 1
        return self.value


def test_a_memory_survives_and_has_the_same_form_both_times(tmp_path):
    fn = Counter({"loss": (np.float32(0.5), float("nan")), "best": np.arange(2)})
    first = Context(tmp_path).memo("sweep", fn, steps=10)
    again = Context(tmp_path).memo("sweep", fn, steps=10)
    assert first == again == {"loss": [0.5, None], "best": [0, 1]}
    assert fn.calls == 1


@pytest.mark.parametrize(
    ("other", "arguments"),
    [
        ({}, {"steps": 11}),
        ({}, {"steps": 10, "seed": 0}),
        ({"full": True}, {"steps": 10}),
        ({"source": "changed"}, {"steps": 10}),
    ],
)
def test_a_memory_is_forgotten_when_anything_differs(tmp_path, other, arguments):
    fn = Counter(1)
    Context(tmp_path).memo("sweep", fn, steps=10)
    Context(tmp_path, **other).memo("sweep", fn, **arguments)
    assert fn.calls == 2
    # Both are kept: going back costs nothing.
    Context(tmp_path).memo("sweep", fn, steps=10)
    assert fn.calls == 2


def test_a_memory_is_forgotten_when_a_package_changes_its_version(
    tmp_path, monkeypatch
):
    fn = Counter(1)
    Context(tmp_path).memo("sweep", fn)
    versions = {"jax": "99"}
    monkeypatch.setattr(context.environment, "versions", lambda names: versions)
    Context(tmp_path).memo("sweep", fn)
    assert fn.calls == 2


def test_a_damaged_memory_is_made_again(tmp_path):
    fn = Counter(1)
    Context(tmp_path).memo("sweep", fn)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(file.read_text()[:-5])
    assert Context(tmp_path).memo("sweep", fn) == 1
    assert fn.calls == 2


def test_a_failed_computation_leaves_no_memory(tmp_path):
    def fail():
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        Context(tmp_path).memo("sweep", fail)
    assert Context(tmp_path).memo("sweep", Counter(3)) == 3


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name must be"):
        Context(tmp_path).memo(name, Counter(1))
    with pytest.raises(ValueError, match="name must be"):
        Context(tmp_path).figure(name, lambda fig: None, "caption", "alt")


def test_a_figure_is_drawn_for_both_pages_and_listed_once(tmp_path):
    drawn = []
    here = Context(tmp_path, command="python -m lion.claims --experiment=sweep")
    here.figure("loss", drawn.append, "old", "old")
    here.figure("rate", drawn.append, "The rate.", "Falls from 1 to 0.")
    here.figure("loss", drawn.append, "The loss.", "Rises from 0 to 1.")
    assert len(drawn) == 6
    listed = json.loads((tmp_path / "figures.json").read_text())
    assert [row["name"] for row in listed] == ["loss", "rate"]
    assert listed[0]["caption"] == "The loss."
    assert listed[0]["alt"] == "Rises from 0 to 1."
    assert listed[0]["command"] == here.command
    for row in listed:
        for theme in ("light", "dark"):
            assert (tmp_path / row[theme]).read_text().startswith("<?xml")


def test_a_figure_without_words_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a caption and an alt text"):
        Context(tmp_path).figure("loss", lambda fig: None, "caption", " ")


def test_main_leaves_with_the_status_of_the_runner(capsys):
    claim = Claim("a.b", "s", "x", lambda context: claims.exact(True, 1))
    with pytest.raises(SystemExit) as caught:
        claims.main([claim], ["--list"], package="demo")
    assert caught.value.code == 0
    assert json.loads(capsys.readouterr().out)["package"] == "demo"


@pytest.fixture
def reports(tmp_path):
    def row(name, verdict, package="lion"):
        return {"package": package, "id": name, "verdict": verdict}

    old = [row("a", "holds"), row("b", "not decided"), row("gone", "holds")]
    new = [row("a", "does not hold"), row("b", "not decided"), row("fresh", "holds")]
    (tmp_path / "old.json").write_text(json.dumps({"version": 1, "claims": old}))
    (tmp_path / "new.json").write_text(json.dumps(new))
    return tmp_path


def test_diff_tells_what_changed_appeared_and_vanished(reports, capsys):
    files = [str(reports / "old.json"), str(reports / "new.json")]
    assert claims.diff(["diff", *files]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "lion a: holds -> does not hold",
        "lion gone: vanished (was holds)",
        "lion fresh: appeared (holds)",
    ]
    assert claims.diff(["diff", files[0], files[0]]) == 0
    assert capsys.readouterr().out == "no verdict changed (3 claims)\n"


def test_diff_tells_of_a_crash_whatever_the_verdict_was(reports, capsys):
    old = json.loads((reports / "new.json").read_text())
    claim = dict.fromkeys(("id", "statement", "source", "experiment"), "a")
    crashed = claim_rows.crashed_row(claim, "lion", "python", "AttributeError: x")
    ids = [row["id"] for row in old]
    assert crashed["verdict"] == claims.NOT_DECIDED == old[ids.index("b")]["verdict"]
    new = [crashed | {"id": row["id"]} if row["id"] in "ab" else row for row in old]
    (reports / "crashed.json").write_text(json.dumps(new))
    files = [str(reports / name) for name in ("new.json", "crashed.json")]
    assert claims.diff(["diff", *files]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "lion a: does not hold -> crashed",
        "lion b: not decided -> crashed",
    ]


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"claims": 3}', '[{"id": 1}]'])
def test_diff_of_a_file_that_is_no_report_is_one_line(reports, capsys, content):
    other = reports / "other.json"
    if content is not None:
        other.write_text(content)
    with pytest.raises(SystemExit) as caught:
        claims.diff(["diff", str(reports / "old.json"), str(other)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "other.json is not a readable claims.json" in error


def test_diff_is_a_command(reports):
    command = [sys.executable, "-m", "expkit.claims", "diff", "old.json", "new.json"]
    root = claims.Path(claims.__file__).parent.parent
    environ = {"PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run(
        command, cwd=reports, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "lion a: holds -> does not hold" in done.stdout
