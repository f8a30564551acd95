"""Signals are noted once, then act as usual, and the old handlers come back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from expkit.signals import STOPPING, stop_signal

TWICE = (signal.SIGINT, signal.SIGTERM)


class OldHandlerError(Exception):
    pass


@pytest.fixture(autouse=True)
def old_handler():
    """Handlers that raise stand in for the ones of the program."""

    def handler(signum, frame):
        del frame
        raise OldHandlerError(signum)

    previous = {signum: signal.signal(signum, handler) for signum in STOPPING}
    yield handler
    for signum, former in previous.items():
        signal.signal(signum, former)


@pytest.mark.parametrize("signum", TWICE)
def test_the_first_signal_is_noted_and_the_second_acts_as_usual(signum):
    with stop_signal() as stop:
        assert stop.signum is None
        os.kill(os.getpid(), signum)
        assert stop.signum == signum
        with pytest.raises(OldHandlerError):
            os.kill(os.getpid(), signum)


@pytest.mark.parametrize("first", STOPPING)
def test_after_one_signal_the_others_act_as_usual_too(first):
    with stop_signal():
        os.kill(os.getpid(), first)
        for other in set(STOPPING) - {first}:
            with pytest.raises(OldHandlerError):
                os.kill(os.getpid(), other)


def test_a_terminal_that_is_closed_twice_over_does_not_end_the_saving():
    with stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signum == signal.SIGHUP
    os.kill(os.getpid(), signal.SIGHUP)  # what was saved may still be on its way
    with pytest.raises(OldHandlerError):
        os.kill(os.getpid(), signal.SIGTERM)


def test_under_nohup_a_closed_terminal_is_no_reason_to_stop():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signum is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_the_old_handlers_come_back(old_handler):
    with stop_signal():
        assert signal.getsignal(signal.SIGTERM) is not old_handler
    with pytest.raises(ZeroDivisionError), stop_signal():
        raise ZeroDivisionError
    for signum in STOPPING:
        assert signal.getsignal(signum) is old_handler


def test_outside_the_main_thread_signals_act_as_usual(old_handler):
    seen = []

    def run():
        with stop_signal() as stop:
            handlers = {signal.getsignal(signum) for signum in STOPPING}
            seen.append((stop.signum, handlers))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, {old_handler})]


EXIT = """
import os, sys
from expkit.signals import exit_on_signals
exit_on_signals("me")
os.kill(os.getpid(), int(sys.argv[1]))
print("still here")
"""


@pytest.mark.parametrize("signum", STOPPING)
def test_without_anything_to_save_a_signal_ends_the_process(repository_root, signum):
    command = [sys.executable, "-c", EXIT, str(signum.value)]
    pipes = {"stdout": subprocess.PIPE, "text": True, "cwd": repository_root}
    done = subprocess.run(command, stderr=subprocess.PIPE, **pipes)
    assert done.returncode == 128 + signum
    assert (done.stdout, done.stderr) == ("", f"me: stopped by {signum.name}.\n")
    with open("/dev/full", "w") as full:  # as a terminal that is gone
        done = subprocess.run(command, stderr=full, **pipes)
    assert (done.returncode, done.stdout) == (128 + signum, "")


def test_under_nohup_the_process_is_still_there(repository_root):
    command = ["nohup", sys.executable, "-c", EXIT, str(signal.SIGHUP.value)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository_root)
    assert (done.returncode, done.stdout) == (0, "still here\n")
