import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import expkit
from expkit import claim_runner, claims
from expkit.claims import Claim, Finding
from expkit.signals import heeded

FIELDS = {
    "id",
    "package",
    "statement",
    "source",
    "measured",
    "interval",
    "verdict",
    "seeds",
    "command",
}


def ok(context):
    return Finding(0.5, "holds", (float("-inf"), 1.0), context.seeds(), "fine")


def crash(context):
    raise ValueError("shapes (3,) and (4,)\ndo not agree\n\nand a long story")


def make(name, check=ok, experiment="identities"):
    return Claim(name, f"{name} is so.", "A. Author, 2020.", check, experiment)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs claims; gives status, rows, standard output and standard error."""

    def call(own, *argv, out=tmp_path / "out"):
        try:
            argv = [*argv, f"--out={out}"]
            status = claim_runner.main(own, argv, package="demo")
        except SystemExit as error:
            status = error.code
        file = out / "claims.json"
        rows = json.loads(file.read_text()) if file.is_file() else None
        return status, rows, *capsys.readouterr()

    return call


def test_list_prints_experiments_in_order_and_every_claim(run):
    own = [make("b", experiment="sweep"), make("a"), make("c", experiment="sweep")]
    status, _, output, _ = run(own, "--list")
    listed = json.loads(output)
    assert status == 0
    assert (listed["package"], listed["experiments"]) == (
        "demo",
        ["sweep", "identities"],
    )
    assert [row["id"] for row in listed["claims"]] == ["b", "a", "c"]
    assert listed["claims"][0] == {
        "id": "b",
        "statement": "b is so.",
        "source": "A. Author, 2020.",
        "experiment": "sweep",
        "alone": False,
    }


def test_rows_have_the_published_fields_and_no_infinity(run, tmp_path):
    status, rows, output, _ = run([make("demo.a")], "--experiment=identities")
    (row,) = rows
    assert status == 0
    assert set(row) == FIELDS | {"details", "experiment", "seconds"}
    assert (row["measured"], row["interval"], row["seeds"]) == (
        0.5,
        [None, 1],
        [0, 1, 2],
    )
    assert row["command"] == (
        f".venv/bin/python -m demo.claims --experiment=identities --only=demo.a "
        f"--out={tmp_path / 'out'}"
    )
    assert output.startswith("holds ")
    assert "demo.a  0.5  (" in output


def test_commands_quote_a_path_with_spaces(run, tmp_path):
    out = tmp_path / "two words"
    _, (row,), _, _ = run([make("a")], "--experiment=identities", out=out)
    assert shlex.split(row["command"])[-1] == f"--out={out}"


def test_full_runs_use_all_seeds_and_say_so_in_the_command(run):
    _, (row,), _, _ = run([make("a")], "--experiment=identities", "--full")
    assert row["seeds"] == list(range(10))
    assert row["command"].endswith(" --full")


def test_only_the_claims_of_the_experiment_run(run):
    own = [make("a"), make("b", crash, "other")]
    status, rows, _, _ = run(own, "--experiment=identities")
    assert (status, [row["id"] for row in rows]) == (0, ["a"])


def test_a_crash_is_a_row_and_the_others_still_run(run):
    own = [make("a"), make("b", crash), make("c")]
    status, rows, output, error = run(own, "--experiment=identities")
    assert status == 1
    assert [row["verdict"] for row in rows] == ["holds", "not decided", "holds"]
    assert rows[1]["details"] == (
        "crashed: ValueError: shapes (3,) and (4,) do not agree"
    )
    assert set(rows[1]) == set(rows[0])
    assert "Traceback" in error
    assert "crashed            b" in output


@pytest.mark.parametrize("found", [None, True, ("holds", 1.0)])
def test_a_check_that_returns_something_else_is_a_crash(run, found):
    status, (row,), _, _ = run([make("a", lambda _: found)], "--experiment=identities")
    assert status == 1
    assert "not a Finding" in row["details"]


def test_a_rerun_keeps_what_is_finished_and_repeats_what_crashed(run):
    calls = []

    def fails_once(context):
        calls.append("b")
        if calls.count("b") == 1:
            raise RuntimeError("out of memory")
        return ok(context)

    def counted(context):
        calls.append("a")
        return ok(context)

    own = [make("a", counted), make("b", fails_once)]
    assert run(own, "--experiment=identities")[0] == 1
    status, rows, output, _ = run(own, "--experiment=identities")
    assert status == 0
    assert calls == ["a", "b", "b"]
    assert [row["verdict"] for row in rows] == ["holds", "holds"]
    assert "(kept)" in output


def test_another_mode_or_other_code_measures_again(run, tmp_path, monkeypatch):
    calls = []

    def counted(context):
        calls.append(context.full)
        context.figure("loss", lambda fig: None, "caption", "alt")
        return ok(context)

    own = [make("a", counted), make("b", lambda c: calls.append("b") or ok(c))]
    run(own, "--experiment=identities")
    assert (tmp_path / "out" / "figures.json").is_file()
    run(own, "--experiment=identities", "--full", "--only=b")
    # The other row and the figures were quick ones: they are gone, not passed off.
    rows = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert [row["id"] for row in rows] == ["b"]
    assert not (tmp_path / "out" / "figures.json").exists()
    monkeypatch.setattr(claim_runner.environment, "source_digest", lambda *a, **k: "x")
    run(own, "--experiment=identities", "--full")
    assert calls == [False, "b", "b", True, "b"]


def test_only_keeps_the_other_finished_rows(run):
    own = [make("a"), make("b")]
    run(own, "--only=b")
    _, rows, _, _ = run(own, "--only=a")
    assert [row["id"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--experiment=identitis"], "nearest of 2 is 'identities'"),
        (["--experiment=identities", "--only=demo.aa"], "nearest of 2 is 'demo.a'"),
        (["--experiment=sweep", "--only=demo.a"], "belongs to experiment 'identities'"),
        ([], "--experiment is missing: one of identities, sweep"),
        (["--experiment=identities", "--ful"], "--ful"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(run, argv, words):
    own = [make("demo.a"), make("demo.b", experiment="sweep")]
    status, rows, output, error = run(own, *argv)
    assert (status, rows, output) == (2, None, "")
    assert error.count("\n") == 1
    assert words in error


def test_an_unwritable_folder_is_one_line_and_status_2(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, _, error = run(
        [make("a")], "--experiment=identities", out=tmp_path / "file" / "x"
    )
    assert status == 2
    assert error.count("\n") == 1
    assert "cannot write to --out=" in error


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ([make("a"), make("a")], "unique plain name: 'a'"),
        ([make("a b")], "unique plain name: 'a b'"),
        ([make("a", experiment="train")], "plain free name: 'train'"),
        ([make("a", experiment="../x")], "plain free name"),
    ],
)
def test_claims_that_cannot_be_told_apart_are_refused(own, words):
    with pytest.raises(ValueError, match=words):
        claim_runner.main(own, ["--list"], package="demo")


MODULE = """
import time
from expkit.claims import Claim, exact, main

def slow(context):
    print("waiting", flush=True)
    time.sleep(60)

CLAIMS = [
    Claim("a", "s", "x", lambda context: exact(True, 1)),
    Claim("b", "s", "x", slow),
]
if __name__ == "__main__":
    main(CLAIMS)
"""


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_keeps_finished_claims_and_prints_no_traceback(tmp_path, signum, code):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "claims.py").write_text(MODULE)
    environ = os.environ | {"PYTHONPATH": str(Path(expkit.__path__[0]).parent)}
    child = subprocess.Popen(
        [sys.executable, "-m", "demo.claims", "--experiment=identities", "--out=o"],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    while "waiting" not in child.stdout.readline():
        assert child.poll() is None
    time.sleep(0.05)
    child.send_signal(signum)
    _, error = child.communicate(timeout=20)
    assert child.returncode == code
    assert error == f"demo.claims: stopped by {signum.name}.\n"
    rows = json.loads((tmp_path / "o" / "claims.json").read_text())
    # Also: the package is known from `python -m demo.claims`, without being told.
    assert [(row["id"], row["package"]) for row in rows] == [("a", "demo")]


def test_signals_act_as_before_once_the_claims_are_done(run):
    all_of_them = heeded()
    assert len(all_of_them) >= 2
    inside, before = [], [signal.getsignal(signum) for signum in all_of_them]

    def look(context):
        inside.extend(map(signal.getsignal, all_of_them))
        return ok(context)

    run([make("a", look)], "--experiment=identities")
    assert [signal.getsignal(signum) for signum in all_of_them] == before
    assert not set(map(id, inside)) & set(map(id, before))


@pytest.mark.parametrize("code", [129, 130, 143])
def test_training_stopped_by_a_signal_is_not_a_crash(run, code):
    def stopped(context):
        raise SystemExit(code)

    status, rows, _, _ = run([make("a"), make("b", stopped)], "--experiment=identities")
    assert status == code
    assert [row["id"] for row in rows] == ["a"]


def test_a_check_that_exits_otherwise_is_a_crash(run):
    def leaves(context):
        raise SystemExit(2)

    status, rows, _, _ = run([make("a", leaves), make("b")], "--experiment=identities")
    assert (status, len(rows)) == (1, 2)


def test_rows_of_the_contract_can_be_compared(run, tmp_path, capsys):
    run([make("a")], "--experiment=identities")
    file = str(tmp_path / "out" / "claims.json")
    assert claims.diff(["diff", file, file]) == 0
