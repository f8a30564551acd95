import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from waiting import wait_until

from expkit import processes
from expkit.processes import Interrupt, run

STUBBORN = """
import signal, time
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, lambda *_: print("ignored", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    """Runs a Python program; a signal is noted once the program says "ready"."""

    def call(program, signum=None, interrupt=None):
        interrupt = interrupt or Interrupt()
        log = tmp_path / "log.txt"

        def note():
            wait_until(lambda: log.exists() and "ready" in log.read_text(), timeout=20)
            interrupt.note(signum)

        if signum is not None:
            threading.Thread(target=note).start()
        command = [sys.executable, "-c", program]
        code = run(command, tmp_path, log, interrupt)
        return code, log.read_text()

    return call


def test_output_and_errors_go_to_the_log_at_once(start):
    program = "import sys; print('a'); print('b', file=sys.stderr); sys.exit(3)"
    assert start(program) == (3, "a\nb\n")


def test_output_can_have_a_file_of_its_own(tmp_path):
    program = "import sys; print('a'); print('b', file=sys.stderr)"
    files = tmp_path / "deep" / "log.txt", tmp_path / "deep" / "output.txt"
    command = [sys.executable, "-c", program]
    assert run(command, tmp_path, files[0], Interrupt(), output=files[1]) == 0
    assert [file.read_text() for file in files] == ["b\n", "a\n"]


def test_a_child_killed_by_a_signal_has_a_negative_status(start):
    assert start("import os; os.kill(os.getpid(), 9)")[0] == -9


@pytest.mark.parametrize(
    ("noted", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
)
def test_the_signal_is_passed_on_and_the_child_may_finish(start, noted, code):
    assert start(POLITE, noted)[0] == code


def test_a_child_that_does_not_stop_is_killed_after_a_while(start, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    code, log = start(STUBBORN, signal.SIGINT)
    assert code == -signal.SIGKILL
    assert "ignored" in log


def test_a_second_signal_kills_at_once(start, monkeypatch):
    interrupt = Interrupt()
    monkeypatch.setattr(processes.time, "monotonic", lambda: 0.0)
    interrupt.count = 1  # with the one below: two
    assert start(STUBBORN, signal.SIGINT, interrupt)[0] == -signal.SIGKILL


def test_an_error_while_it_waits_leaves_no_child_behind(tmp_path, monkeypatch):
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    log = tmp_path / "log.txt"

    def look(pid):
        if log.read_text().endswith("\n"):
            raise RuntimeError("bug")
        return 0

    monkeypatch.setattr(processes, "_resident", look)
    with pytest.raises(RuntimeError, match="bug"):
        run([sys.executable, "-c", program], tmp_path, log, Interrupt())
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_signals_are_noted_inside_and_act_as_before_outside():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert (interrupt.signum, interrupt.count) == (signal.SIGTERM, 2)
    assert signal.getsignal(signal.SIGTERM) is before
    assert Interrupt().signum is None


def test_a_terminal_that_is_closed_twice_over_does_not_kill_at_once():
    interrupt = Interrupt()
    interrupt.note(signal.SIGHUP)
    interrupt.note(signal.SIGHUP)
    assert (interrupt.signum, interrupt.count) == (signal.SIGHUP, 1)


def test_a_run_under_nohup_outlives_its_terminal():
    program = (
        "import os, signal, time; from expkit.processes import Interrupt\n"
        "with Interrupt() as interrupt:\n"
        "    os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.01)\n"
        "    print(interrupt.signum)"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None\n"
