import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import expkit
from expkit import environment, reproduce

MAIN = """
import sys
from pathlib import Path
(flag,) = sys.argv[1:]
folder = Path(flag.removeprefix("--workdir="))
(folder / "result.json").write_text('{"loss": 0.5}')
"""
CLAIMS = """
import os, pathlib, signal, sys, time
from expkit.claims import Claim, Finding, exact, main

def counted(context):
    with open("count.txt", "a") as file:
        file.write("x")
    return Finding(0.25, "does not hold", (0.2, 0.3), context.seeds())

def crash(context):
    raise ValueError("shapes differ")

def die(context):
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def slow(context):
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
    return exact(True, 1)

CLAIMS = [
    Claim("{0}.a", "s", "x", counted),
    Claim("{0}.b", "s", "x", {1}),
    Claim("{0}.c", "s", "x", lambda context: exact(True, "0 ulp"), "{2}"),
]
if __name__ == "__main__":
    main(CLAIMS)
"""


def add_package(root, name, check="counted", experiment="identities"):
    (root / name).mkdir()
    (root / name / "main.py").write_text(MAIN)
    text = CLAIMS.replace("{0}", name).replace("{1}", check)
    (root / name / "claims.py").write_text(text.replace("{2}", experiment))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one package, `demo`, of two experiments that run."""
    (tmp_path / "setup.cfg").write_text("")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "claims.py").write_text("")  # no main.py: no package
    add_package(tmp_path, "demo", experiment="sweep")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(expkit.__path__[0]).parent))
    return tmp_path


@pytest.fixture
def run(checkout, capsys):
    """Runs the command in this process; gives status and lines of output."""

    def call(*argv):
        try:
            status = reproduce.main(argv)
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    return call


def evidence(checkout):
    return json.loads((checkout / "out" / "claims.json").read_text())


def verdicts(checkout):
    return {row["id"]: row["verdict"] for row in evidence(checkout)["claims"]}


def test_a_run_leaves_report_claims_and_environment(run, checkout):
    status, lines, _ = run()
    assert status == 0  # although a claim does not hold
    found = evidence(checkout)
    assert found["version"] == 1
    assert [row["id"] for row in found["claims"]] == ["demo.a", "demo.b", "demo.c"]
    written = json.loads((checkout / "out" / "environment.json").read_text())
    assert written == found["environment"]
    assert (written["mode"], written["state"]) == ("quick", "finished")
    assert written["command"] == "./reproduce.sh"
    assert written["versions"]["jax"] == environment.versions(["jax"])["jax"]
    page = (checkout / "out" / "report.html").read_text()
    assert "demo.c" in page
    assert (checkout / "out" / "demo" / "train" / "result.json").is_file()
    for step in ("train", "identities", "sweep"):
        assert (checkout / "out" / "demo" / step / "log.txt").is_file()
    assert lines[0].startswith("[1/3] demo train: trained")
    assert lines[1].startswith("[2/3] demo identities: 2 does not hold")
    assert ", about " in lines[1]
    assert lines[-2:] == ["demo: 1 holds, 2 does not hold", "report: out/report.html"]


def test_commands_in_the_results_repeat_them(run, checkout):
    run("demo", "--full", "--out=some/where")
    rows = json.loads((checkout / "some" / "where" / "claims.json").read_text())[
        "claims"
    ]
    assert rows[2]["command"] == (
        "python -m demo.claims --experiment=sweep --only=demo.c "
        "--out=some/where/demo/sweep --full"
    )
    done = subprocess.run(
        [sys.executable, *rows[2]["command"].split()[1:]],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "demo.c  0 ulp  (kept)" in done.stdout
    assert rows[0]["seeds"] == list(range(10))
    about = json.loads(
        (checkout / "some" / "where" / "demo" / "about.json").read_text()
    )
    assert about["command"] == "./reproduce.sh demo --full --out=some/where"


def test_a_rerun_repeats_nothing(run, checkout):
    first = run()
    assert (checkout / "count.txt").read_text() == "xx"
    second = run()
    assert (first[0], second[0]) == (0, 0)
    assert (checkout / "count.txt").read_text() == "xx"
    assert len(verdicts(checkout)) == 3


def test_a_crashed_claim_makes_the_status_1_and_the_rest_still_runs(run, checkout):
    add_package(checkout, "broken", "crash")
    status, lines, _ = run()
    assert status == 1
    assert verdicts(checkout)["broken.b"] == "not decided"
    assert verdicts(checkout)["broken.c"] == verdicts(checkout)["demo.c"] == "holds"
    text = "\n".join(lines)
    assert "FAILED, 1 holds, 1 does not hold, 1 crashed" in text
    assert "broken.b crashed: ValueError: shapes differ" in text
    assert "Traceback" not in text
    assert "shapes differ" in (checkout / "out" / "report.html").read_text()


def test_claims_of_a_process_that_dies_are_rows(run, checkout):
    add_package(checkout, "broken", "die")
    status, lines, _ = run("broken")
    assert status == 1
    rows = {row["id"]: row for row in evidence(checkout)["claims"]}
    assert rows["broken.a"]["verdict"] == "does not hold"  # finished before
    for name in ("broken.b", "broken.c"):
        assert rows[name]["verdict"] == "not decided"
        assert rows[name]["details"].startswith(
            "crashed: the process ended with SIGKILL"
        )
        assert set(rows[name]) | {"seconds"} == set(rows["broken.a"])
    assert "    last words" in lines
    assert "last words" in (checkout / "out" / "report.html").read_text()


def test_training_that_fails_is_told_and_the_claims_still_run(run, checkout):
    (checkout / "demo" / "main.py").write_text("raise SystemExit('no such data')")
    status, lines, _ = run()
    assert status == 1
    assert len(verdicts(checkout)) == 3
    assert "    no such data" in lines


@pytest.mark.parametrize("text", ["import nowhere", "print('not a list')"])
def test_a_package_that_cannot_say_what_it_claims_is_told(run, checkout, text):
    add_package(checkout, "broken")
    (checkout / "broken" / "claims.py").write_text(text)
    status, lines, _ = run()
    assert status == 1
    assert lines[0].startswith("broken: FAILED to list its claims")
    assert set(verdicts(checkout)) == {"demo.a", "demo.b", "demo.c"}
    assert "Listing the claims" in (checkout / "out" / "report.html").read_text()


def test_results_of_other_code_are_not_passed_off_when_an_experiment_breaks(
    run, checkout
):
    assert run()[0] == 0
    file = checkout / "demo" / "claims.py"
    guard = "import sys\nassert '--list' in sys.argv, 'broken now'\n"
    file.write_text(guard + file.read_text())
    assert run()[0] == 1
    assert set(verdicts(checkout).values()) == {"not decided"}


def test_only_measures_one_claim_and_trains_nothing(run, checkout):
    add_package(checkout, "other")
    status, lines, _ = run("--only=other.c")
    assert status == 0
    assert list(verdicts(checkout)) == ["other.c"]
    assert len(lines) == 3
    assert not (checkout / "out" / "other" / "train").exists()


def test_packages_run_before_stay_in_the_report(run, checkout):
    add_package(checkout, "other")
    run("other")
    run("demo")
    assert {row["package"] for row in evidence(checkout)["claims"]} == {"demo", "other"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["dem"], "unknown package 'dem'; the nearest of 1 is 'demo'"),
        (["--only=demo.aa"], "unknown claim 'demo.aa'; the nearest of 3 is 'demo.a'"),
        (["--out=setup.cfg"], "cannot write to --out=setup.cfg"),
        (["--fulll"], "--fulll"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(run, argv, words):
    status, lines, error = run(*argv)
    assert (status, lines) == (2, [])
    assert error.count("\n") == 1
    assert words in error


def test_another_folder_is_one_line_and_status_2(run, checkout, monkeypatch):
    monkeypatch.chdir(checkout / "demo")
    status, _, error = run()
    assert status == 2
    assert error.count("\n") == 1
    assert "not the root of the checkout" in error


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_leaves_a_report_and_a_rerun_goes_on(run, checkout, signum, code):
    add_package(checkout, "late", "slow", "sweep")
    driver = subprocess.Popen(
        [sys.executable, "-m", "expkit.reproduce", "late"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = checkout / "out" / "late" / "identities" / "claims.json"
    wait_for(rows.exists)
    driver.send_signal(signum)
    output, error = driver.communicate(timeout=20)
    assert driver.returncode == code
    assert error == ""
    assert "identities: INTERRUPTED, 1 does not hold" in output
    assert verdicts(checkout) == {"late.a": "does not hold"}
    page = (checkout / "out" / "report.html").read_text()
    assert "This run was stopped" in page
    assert page.count(">not run<") >= 2
    (checkout / "go").write_text("")
    assert run("late")[0] == 0
    assert (checkout / "count.txt").read_text() == "x"
    assert len(verdicts(checkout)) == 3


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_only(checkout, is_terminal):
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    os.set_blocking(leader, False)
    command = [sys.executable, "-m", "expkit.reproduce"]
    stderr = follower if is_terminal else subprocess.PIPE
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=True)
    if is_terminal:
        assert b"/3 claims" in os.read(leader, 10_000)
    else:
        assert done.stderr == b""
    os.close(follower)
    os.close(leader)
    assert done.stdout.startswith(b"[1/3] demo train")
