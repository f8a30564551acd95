"""Signals are noted once, then act as usual, and the old handlers come back."""

import os
import signal
import threading

import pytest

from expkit.signals import stop_signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class OldHandlerError(Exception):
    pass


@pytest.fixture(autouse=True)
def old_handler():
    """Handlers that raise stand in for the ones of the program."""

    def handler(signum, frame):
        del frame
        raise OldHandlerError(signum)

    previous = {signum: signal.signal(signum, handler) for signum in SIGNALS}
    yield handler
    for signum, former in previous.items():
        signal.signal(signum, former)


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_acts_as_usual(signum):
    with stop_signal() as stop:
        assert stop.signum is None
        os.kill(os.getpid(), signum)
        assert stop.signum == signum
        with pytest.raises(OldHandlerError):
            os.kill(os.getpid(), signum)


@pytest.mark.parametrize("first", SIGNALS)
def test_after_one_signal_the_other_acts_as_usual_too(first):
    [other] = set(SIGNALS) - {first}
    with stop_signal():
        os.kill(os.getpid(), first)
        with pytest.raises(OldHandlerError):
            os.kill(os.getpid(), other)


def test_the_old_handlers_come_back(old_handler):
    with stop_signal():
        assert signal.getsignal(signal.SIGTERM) is not old_handler
    with pytest.raises(ZeroDivisionError), stop_signal():
        raise ZeroDivisionError
    for signum in SIGNALS:
        assert signal.getsignal(signum) is old_handler


def test_outside_the_main_thread_signals_act_as_usual(old_handler):
    seen = []

    def run():
        with stop_signal() as stop:
            seen.append((stop.signum, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, old_handler)]
