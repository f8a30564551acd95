import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios

import pytest
from fake_package import add_package, evidence, verdicts
from waiting import wait_until

from expkit import environment
from expkit.driver import Driver


def test_a_run_leaves_report_claims_and_environment(run, checkout):
    status, lines, error = run("--jobs=1")
    assert status == 0  # although a claim does not hold
    assert error == ""  # no bar where there is no terminal
    found = evidence(checkout)
    assert found["version"] == 1
    assert [row["id"] for row in found["claims"]] == ["demo.a", "demo.b", "demo.c"]
    written = json.loads((checkout / "out" / "environment.json").read_text())
    assert written == found["environment"]
    assert (written["mode"], written["state"]) == ("quick", "finished")
    assert written["command"] == "./reproduce.sh --jobs=1"
    assert written["versions"]["jax"] == environment.versions(["jax"])["jax"]
    page = (checkout / "out" / "report.html").read_text()
    assert "demo.c" in page
    assert (checkout / "out" / "demo" / "train" / "result.json").is_file()
    for step in ("train", "identities", "sweep"):
        assert (checkout / "out" / "demo" / step / "log.txt").is_file()
    assert lines[0].startswith("[1/3] demo train: trained")
    assert lines[1].startswith("[2/3] demo identities: 2 does not hold")
    for line in lines[:2]:
        assert re.search(r"\(.+ in all, about .+ left\)", line)
    assert " left" not in lines[2]
    assert lines[-2:] == ["demo: 1 holds, 2 does not hold", "report: out/report.html"]


def test_commands_in_the_results_repeat_them(run, checkout):
    run("demo", "--full", "--out=some/where")
    rows = json.loads((checkout / "some" / "where" / "claims.json").read_text())[
        "claims"
    ]
    assert rows[2]["command"] == (
        ".venv/bin/python -m demo.claims --experiment=sweep --only=demo.c "
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


def test_a_process_that_takes_too_much_memory_is_ended_and_told(run, checkout):
    add_package(checkout, "hungry", "hoard")
    status, lines, _ = run("hungry", "demo", "--max-memory=0.5")
    assert status == 1
    rows = {row["id"]: row for row in evidence(checkout)["claims"]}
    assert rows["hungry.b"]["details"] == (
        "crashed: the process ended with more than 0.5 GiB of memory, see "
        "--max-memory, before this claim was measured."
    )
    assert rows["demo.b"]["verdict"] == "does not hold"
    assert "more than 0.5 GiB of memory" in "\n".join(lines)


def test_training_that_fails_is_told_and_the_claims_still_run(run, checkout):
    (checkout / "demo" / "main.py").write_text("raise SystemExit('no such data')")
    status, lines, _ = run()
    assert status == 1
    assert len(verdicts(checkout)) == 3
    assert "    no such data" in lines


def test_packages_that_cannot_say_what_they_claim_are_told(run, checkout):
    texts = {"broken": "import nowhere", "chatty": "print('not a list')"}
    for name, text in texts.items():
        add_package(checkout, name)
        (checkout / name / "claims.py").write_text(text)
    status, lines, _ = run()
    assert status == 1
    for line, name in zip(lines, texts, strict=False):
        assert line.startswith(f"{name}: FAILED to list its claims")
    assert set(verdicts(checkout)) == {"demo.a", "demo.b", "demo.c"}
    page = (checkout / "out" / "report.html").read_text()
    assert page.count("Listing the claims") == 2


def test_only_measures_one_claim_and_trains_nothing(run, checkout):
    add_package(checkout, "other")
    status, lines, _ = run("--only=other.c")
    assert status == 0
    assert list(verdicts(checkout)) == ["other.c"]
    assert len(lines) == 3
    assert not (checkout / "out" / "other" / "train").exists()


def test_only_measures_one_experiment(run, checkout):
    add_package(checkout, "other", experiment="sweep")
    status, lines, _ = run("--only=other/identities")
    assert status == 0
    assert list(verdicts(checkout)) == ["other.a", "other.b"]
    assert len(lines) == 3
    run("other")  # keeps them
    assert (checkout / "count.txt").read_text() == "xx"
    assert list(verdicts(checkout)) == ["other.a", "other.b", "other.c"]


def test_each_experiment_keeps_the_command_that_measured_it(run, checkout):
    run("demo", "--only=demo/sweep")
    run("demo", "--only=demo/identities")
    run("demo", "--only=demo/sweep", "--jobs=1")  # which measures nothing again
    found = json.loads((checkout / "out/claims.json").read_text())["origins"]
    assert {name: origin["command"] for name, origin in found.items()} == {
        f"demo/{name}": f"./reproduce.sh demo --only=demo/{name}"
        for name in ("identities", "sweep")
    }


def test_packages_run_before_stay_in_the_report(run, checkout):
    add_package(checkout, "other")
    run("other")
    run("demo")
    assert {row["package"] for row in evidence(checkout)["claims"]} == {"demo", "other"}


@pytest.mark.parametrize(
    ("jobs", "alone", "seconds", "verdict"),
    [
        (2, False, 20, "holds"),
        (1, False, 0.5, "does not hold"),
        (2, True, 0.5, "does not hold"),
    ],
)
def test_two_steps_run_at_a_time_unless_one_wants_to_be_alone(
    run, checkout, monkeypatch, jobs, alone, seconds, verdict
):
    monkeypatch.setenv("MEET_SECONDS", str(seconds))
    add_package(checkout, "pair", "meet", "sweep", "meet", alone)
    assert run("pair", f"--jobs={jobs}")[0] == 0
    found = verdicts(checkout)
    assert (found["pair.b"], found["pair.c"]) == (verdict, verdict)


def test_an_error_of_the_command_ends_the_steps_that_run(run, checkout, monkeypatch):
    add_package(checkout, "late", "slow", "sweep")

    def fail(driver, state):
        raise OSError("disk full")

    monkeypatch.setattr(Driver, "write_report", fail)
    status, _, error = run("late")
    assert (status, error) == (1, "./reproduce.sh: disk full; rerun to resume.\n")
    status = json.loads((checkout / "out/late/identities/status.json").read_text())
    assert status["state"] == "interrupted"


def test_a_relative_folder_is_that_of_the_caller(run, checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("REPRODUCE_CALLED_FROM", str(checkout / "notes"))
    assert run("demo", "--out=../notes/o", "--only=demo.c")[0] == 0
    assert (checkout / "notes/o/report.html").is_file()
    command = json.loads((checkout / "notes/o/claims.json").read_text())["claims"][0]
    assert "--out=notes/o/demo/sweep" in command["command"]
    # Without --out it is the folder of the checkout, as ever.
    assert run("demo", "--only=demo.c")[1][-1] == "report: out/report.html"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["dem"], "unknown package 'dem'; the nearest of 1 is 'demo'"),
        (["--only=demo.aa"], "unknown claim 'demo.aa'; the nearest of 3 is 'demo.a'"),
        (["--only=demo/swep"], "unknown experiment 'demo/swep'; the nearest of 2 is"),
        (["--jobs=0"], "--jobs must be at least 1, got 0"),
        (["--max-memory=0"], "--max-memory must be above 0, got 0"),
        (["--out=setup.cfg"], "cannot write to --out=setup.cfg"),
        (["--out=lr=[1]"], "cannot write to --out=lr=[1]: with '[' in the path"),
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


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_a_report_and_a_rerun_goes_on(run, checkout, signum, code):
    add_package(checkout, "late", "slow", "sweep")
    driver = subprocess.Popen(
        [sys.executable, "-m", "expkit.reproduce", "late", "--jobs=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = checkout / "out" / "late" / "identities" / "claims.json"
    wait_until(rows.exists, timeout=20)
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


@pytest.mark.parametrize(
    "size", [(0, 0), pytest.param((24, 80), marks=pytest.mark.slow)]
)
def test_a_bar_is_shown_on_a_terminal(checkout, size):
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, size)
    os.set_blocking(leader, False)
    command = [sys.executable, "-m", "expkit.reproduce", "--only=demo/identities"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, check=True)
    assert b"/2 claims" in os.read(leader, 10_000)
    os.close(follower)
    os.close(leader)
    assert done.stdout.startswith(b"[1/1] demo ")
