"""Mutated flags and configs, and wrong commands: one line, status 2, and no more."""

import subprocess

import fuzz_check
import fuzz_commands
import fuzz_flags
import pytest

NUMBERS = {"assignments": 60, "config arguments": 40}
COMMANDS = 50


def test_every_kind_has_cases():
    assert NUMBERS.keys() == fuzz_flags.CASES.keys()
    assert sum(NUMBERS.values()) == 100


@pytest.mark.parametrize("name", NUMBERS)
def test_the_first_cases_are_taken_or_refused(name, tmp_path):
    fuzz_check.run_cases(name, fuzz_flags.CASES[name], range(3), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_all_cases_are_taken_or_refused(name, tmp_path):
    fuzz_check.run_cases(name, fuzz_flags.CASES[name], range(NUMBERS[name]), tmp_path)


def test_a_broken_override_is_caught(tmp_path, monkeypatch):
    def broken(config, field, text):
        raise KeyError(field)

    monkeypatch.setattr(fuzz_flags.config_lib, "override", broken)
    with pytest.raises(AssertionError, match="case 0 of 'assignments': KeyError"):
        fuzz_check.run_cases(
            "assignments", fuzz_flags.CASES["assignments"], [0], tmp_path
        )


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COMMANDS))
def test_every_command_that_is_wrong_says_so_in_one_line(number, tmp_path):
    fuzz_commands.check_refused(fuzz_commands.make(number, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("status", "stderr"),
    [
        (1, "Traceback (most recent call last):\nKeyError: 'seed'\n"),
        (1, "lion.main: seed is no integer.\n"),
        (2, "lion.main: seed\nis no integer.\n"),
        (2, "WARNING: seed\nlion.main: seed is no integer.\n"),
        (2, "lion.main: a field is no integer.\n"),
        (0, ""),
    ],
)
def test_another_answer_of_a_command_is_caught(status, stderr):
    command = fuzz_commands.Command("lion", [], "seed")
    good = subprocess.CompletedProcess([], 2, "", "lion.main: seed is no integer.\n")
    fuzz_commands.check_answer(command, good)
    with pytest.raises(AssertionError):
        fuzz_commands.check_answer(
            command, subprocess.CompletedProcess([], status, "", stderr)
        )
